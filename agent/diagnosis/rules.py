"""What the rules of TCP and of UDP share."""

from typing import NamedTuple

from agent.diagnosis.ends import KEPT, Ends
from agent.iperf3.warnings import REACHED
from agent.protocol import Cause

# A test of fewer seconds, or of fewer round trips, is over before it is as fast as it can be.
SECONDS, ROUND_TRIPS = 1.0, 10
# The shares of the pacing and of an interface's speed that count as reached: both count the
# packets' headers.
_PACED, _FILLED = 0.93, 0.9
# The share of the time at whose end iperf3 may not have seen that its bytes were out.
_MUCH_OVERTIME = 0.1
# Whose rate is above its speed has another one than it says.
_AT_MOST = 1.02
# The share of the looks.
_STOPPED = 0.2
# The share of the time from which on a busy thread is the limit for sure.
VERY_BUSY = 0.9
# Milliseconds: a longer delay is neither a busy host's nor a delayed acknowledgement's (40 ms).
LONGEST_DELAY = 45.0
# The shares of what was lost that the drops of this host's queue may be: of all that leaves by the
# interface it counts the drops.
_OWN_DROPS, _OTHERS_DROPS = 3, 10
# Lost for sure: so many, and this share.
_MANY_LOST, _SURELY_LOST = 20, 5e-3


class Found(NamedTuple):
    """What a rule has found; `why` is the face of the cause, where it has several."""

    cause: Cause
    sure: bool = False
    why: str = ""


def too_short(ends: Ends) -> Found | None:
    """Too few seconds or round trips: a long path takes many seconds to fill."""
    least = max(SECONDS, ROUND_TRIPS * ends.base / 1000)
    if ends.overtime > _MUCH_OVERTIME * ends.seconds:
        sure = ends.seconds - ends.overtime < least
        return Found(Cause.TOO_SHORT, sure=sure, why="seen late")
    return Found(Cause.TOO_SHORT, sure=True) if ends.seconds < least else None


def target(ends: Ends) -> Found | None:
    """As fast as it was asked to be; of one that is faster, iperf3 may not have kept to that."""
    for limit, least in ((ends.asked, REACHED), (ends.sender.pacing, _PACED)):
        if ends.is_at(limit, least):
            return Found(Cause.TARGET_RATE, sure=ends.is_at(limit, least, KEPT))
    return None


def line(ends: Ends) -> Found | None:
    """An interface carries no more."""
    speeds = [each.speed_mbps * 1e6 for each in ends.halves if each.speed_mbps]
    full = speeds and _FILLED <= (ends.rate or 0.0) / min(speeds) <= _AT_MOST
    return Found(Cause.LINE_RATE, sure=True) if full else None


def stopped(ends: Ends) -> Found | None:
    """Somebody stopped iperf3, at either end, for a good part of the time."""
    if (ends.sender.stopped or 0.0) >= _STOPPED:
        return Found(Cause.SENDER_HOST, sure=True, why="sender stopped")
    if (ends.receiver.stopped or 0.0) >= _STOPPED:
        return Found(Cause.RECEIVER_HOST, sure=True, why="receiver stopped")
    return None


def own_drops(ends: Ends, lost: float, least: float) -> Found | None:
    """The queue of the sender's own interface dropped a share of what the test lost."""
    share = (ends.sender.qdisc_drops or 0) / max(1, lost)
    if not least <= share <= _OTHERS_DROPS:
        return None
    return Found(Cause.SENDER_HOST, sure=share <= _OWN_DROPS, why="sender drops")


def is_lost_for_sure(ends: Ends) -> bool:
    """Whether a link that is bad, and not a chance, has lost so much."""
    return ends.lost >= _MANY_LOST and ends.lost_share >= _SURELY_LOST
