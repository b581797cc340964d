"""What limited a UDP test: the rules, in the order in which they are tried."""

import math

from agent.diagnosis import rules
from agent.diagnosis.ends import MUCH_LOST, QUEUE_SHARE, Ends
from agent.diagnosis.rules import LONGEST_DELAY, VERY_BUSY, Found, is_lost_for_sure
from agent.iperf3.warnings import REACHED
from agent.protocol import Cause

# Milliseconds by which a queue delays the end of a test.
_QUEUE = 2.0
# Milliseconds by which the end and the usual round trip may differ where surely no queue stands.
_SAME_END, _SAME_TRIP = 1.0, 0.5
# Milliseconds by which a busy host hardly delays it.
_NO_HOST = 10.0
# From this share on no queue and no policer loses, but what drops datagrams of so many bytes.
_ALL_LOST, _LARGE = 0.99, 1200


def _all_arrived(ends: Ends) -> Found | None:
    """All that was asked for; a sender that nobody told of a loss is not sure."""
    found = None if _is_much_lost(ends) else rules.target(ends)
    return found and found._replace(sure=found.sure and ends.knows_losses)


def _is_much_lost(ends: Ends) -> bool:
    return ends.has_loss and ends.lost_share >= MUCH_LOST


def _not_sent(ends: Ends) -> Found | None:
    """The bitrate was not sent by more than was lost on the way."""
    sent, lost = ends.sent or 0.0, (ends.sent or 0.0) - (ends.rate or 0.0)
    if ends.asked:
        found = ends.asked - sent > max(lost, (1 - REACHED) * ends.asked)
    else:
        found = ends.sender.is_busy and ends.lost_share < 1 - REACHED
    if ends.sent is None or not found:
        return None
    if not ends.knows_sender:
        return Found(Cause.UNKNOWN, why="not sent there")
    if ends.sender.is_busy:
        # The busiest thread of two ways may be that of the other one.
        sure = ends.sender.load >= VERY_BUSY and ends.knows_losses and not ends.sender.both_ways
        return Found(Cause.SENDER_CPU, sure=sure)
    return Found(Cause.SENDER_HOST, why="not sent")


def _datagrams_lost(ends: Ends) -> Found | None:
    """Where datagrams were lost; what one half sees of it is never sure."""
    if not _is_much_lost(ends):
        return None
    both = ends.knows_sender and ends.knows_receiver
    share = (ends.receiver.socket_drops or 0) / ends.lost
    if share >= 0.5:
        if ends.receiver.is_busy:
            sure = ends.receiver.load >= VERY_BUSY and not ends.receiver.both_ways
            return Found(Cause.RECEIVER_CPU, sure=sure)
        return Found(Cause.RECEIVER_HOST, sure=share >= 0.8, why="receiver drops")
    if dropped := rules.own_drops(ends, ends.lost, 0.5):
        return dropped._replace(sure=both and dropped.sure)
    if ends.lost_share >= _ALL_LOST:
        if ends.datagram >= _LARGE and any(each.orderly for each in ends.halves):
            return Found(Cause.PATH_MTU, why="large datagrams")
        return Found(Cause.PATH_LOSS, why="nothing passes")
    # A busy host answers late as well.
    least = ends.base * QUEUE_SHARE
    is_late = ends.delay >= max(_QUEUE if ends.is_calm else _NO_HOST, least)
    if is_late and not ends.receiver.is_busy:
        if ends.has_missing:
            return Found(Cause.PATH_CAPACITY, why="growing queue")
        sure = both and ends.delay >= max(LONGEST_DELAY, least)
        return Found(Cause.PATH_CAPACITY, sure=sure, why="delayed end")
    sure = both and _has_surely_no_queue(ends) and is_lost_for_sure(ends) and not ends.has_missing
    return Found(Cause.PATH_LOSS, sure=sure, why="" if sure else "queue not seen")


def _has_surely_no_queue(ends: Ends) -> bool:
    """Whether all that tells of one is known and still, and no pause has made a burst."""
    queue = (ends.sender.rtt_ms or math.inf) - (ends.sender.base_ms or 0.0)
    is_still = max(map(abs, ends.rises), default=math.inf) < _SAME_END and queue < _SAME_TRIP
    return is_still and ends.sees_cpu and ends.sender.stopped == ends.receiver.stopped == 0


_FIRST = [rules.too_short, _all_arrived, rules.line, rules.stopped]
UDP_RULES = [*_FIRST, _not_sent, _datagrams_lost]
