"""What limited a TCP test: the rules, in the order in which they are tried.

They were tried on some 800 tests with reno, cubic and BBR.
"""

from agent.diagnosis import path, rules
from agent.diagnosis.ends import LITTLE_LOST, MUCH_LOST, Ends
from agent.diagnosis.rules import VERY_BUSY, Found
from agent.protocol import Cause

# The shares of its receive buffer that a process leaves unread if it is behind, or holds up the
# test: half of the buffer is the window. Undisturbed ones left less than 0.1.
_BEHIND, _UNREAD, _SURELY_UNREAD = 0.2, 0.4, 0.5
# The shares of the time in which a sender waits for its buffer: may be, is, surely is the limit.
# From the last one on it, or a constant window, comes before a queue.
_A_LITTLE, _WAITS, _SURELY, _MOSTLY = 0.1, 0.3, 0.4, 0.5
# The shares of a bitrate that the sender sent, and that arrived where the slow start took time.
_SENT, _ARRIVED = 0.98, 0.9
# The share of the send buffer of a sender that has little to send.
_EMPTY = 0.3
# The shares of the time from which on a core may be what a receiver or a sender lacks.
_RATHER_BUSY, _HALF_BUSY = 0.7, 0.5
# The share of the time in which a sender that is not held up has something to send.
_ALWAYS = 0.9
# A receiver's window that carries no more than this times the rate is full.
_FULL = 1.5


def _sender_cpu(ends: Ends) -> Found | None:
    waits = ends.is_window_full and ends.is_window_constant
    # The busier one of two, unless it waits for the other one.
    follows = ends.receiver.is_busy and ends.receiver.load >= ends.sender.load
    if not ends.sender.is_busy or waits or (follows and not ends.is_starved):
        return None
    return Found(Cause.SENDER_CPU, sure=ends.is_starved and ends.sender.load >= VERY_BUSY)


def _receiver_cpu(ends: Ends) -> Found | None:
    """Before the path: a receiver that starves delays its ACKs, and that looks like a queue."""
    # One that waits for a core and yet reads all that comes may hold up nothing.
    sure = ends.receiver.load >= VERY_BUSY and (ends.receiver.unread_share or 0.0) >= _BEHIND
    return Found(Cause.RECEIVER_CPU, sure=sure) if ends.receiver.is_busy else None


def _receiver_host(ends: Ends) -> Found | None:
    """It leaves unread what has arrived; for want of a core it does so as well."""
    unread = ends.receiver.unread_share or 0.0
    sure = unread >= _SURELY_UNREAD and ends.is_calm
    return Found(Cause.RECEIVER_HOST, sure=sure) if unread >= _UNREAD else None


def _no_window(ends: Ends) -> Found | None:
    """A window of 0 is somebody who does not read, and no small window."""
    sender = ends.sender
    found = sender.window_bytes == 0 and (sender.receiver_window_share or 0.0) >= _A_LITTLE
    return Found(Cause.RECEIVER_HOST, why="no window") if found else None


def _own_drops(ends: Ends) -> Found | None:
    return rules.own_drops(ends, ends.sender.retransmitted or 0, 1 / 3) if ends.has_loss else None


def _all_sent(ends: Ends) -> Found | None:
    """The sender sent all that it was asked for; on a long path a little of it is still to come."""
    asked, queued = ends.asked or 0.0, ends.sender.queued_share
    sent = (ends.sent or 0.0) >= _SENT * asked and ends.is_at(asked, _ARRIVED)
    found = sent and queued is not None and queued < _EMPTY and not ends.has_queue
    return Found(Cause.TARGET_RATE, why="all sent") if found else None


def _sender_host(ends: Ends) -> Found | None:
    """It has nothing to send: for want of a core, at either end, if that is likely."""
    share = ends.sender.busy_share
    if not ends.is_starved or share is None or share >= _ALWAYS:
        return None
    if ends.receiver.load >= max(_RATHER_BUSY, ends.sender.load):
        return Found(Cause.RECEIVER_CPU)
    return Found(Cause.SENDER_CPU if ends.sender.load >= _HALF_BUSY else Cause.SENDER_HOST)


def _windows(ends: Ends) -> Found | None:
    """The receiver's window or the send buffer, unless a larger one would but lengthen a queue."""
    lossy = ends.lost_share >= MUCH_LOST
    share = ends.sender.send_buffer_share or 0.0
    if ends.has_queue:
        waits = (ends.sender.receiver_window_share or 0.0) >= _MOSTLY and ends.is_window_constant
        if ends.is_window_full and waits:
            return Found(Cause.RECEIVER_WINDOW)
        if share >= _MOSTLY:
            return Found(Cause.SEND_BUFFER)
    if (ends.has_queue or lossy) and ends.room > 2:
        return None
    if ends.is_window_full:
        clear = ends.is_window_constant and not (ends.has_loss or ends.has_queue)
        has_cpu = not (ends.sender.is_busy or ends.receiver.is_busy)
        return Found(Cause.RECEIVER_WINDOW, sure=clear and has_cpu)
    if share >= _WAITS and not ends.has_queue:
        return Found(Cause.SEND_BUFFER, sure=share >= _SURELY)
    return None


def _seen_by_the_receiver(ends: Ends) -> Found | None:
    """What a receiver can tell of the path, and is never sure of."""
    if ends.knows_sender:
        return None
    if 0 < ends.room <= _FULL:
        return Found(Cause.RECEIVER_WINDOW)
    if ends.has_queue:
        return Found(Cause.PATH_CAPACITY)
    behind, came = ends.receiver.out_of_order or 0, ends.receiver.segments or 0
    found = behind >= 3 and behind >= LITTLE_LOST * came
    return Found(Cause.PATH_LOSS, why="out of order") if found else None


def _a_little(ends: Ends) -> Found | None:
    """What may be the limit when nothing else is."""
    sender = ends.sender
    waits = (sender.receiver_window_share or 0.0) >= _A_LITTLE and ends.is_window_constant
    if waits and 0 < ends.room <= _FULL:
        return Found(Cause.RECEIVER_WINDOW)
    if (sender.send_buffer_share or 0.0) >= _A_LITTLE:
        return Found(Cause.SEND_BUFFER)
    # It leaves no queue.
    is_bbr = (sender.congestion or "").startswith("bbr")
    found = is_bbr and not ends.is_starved
    return Found(Cause.PATH_CAPACITY, why="no queue") if found else None


_FIRST = [rules.too_short, path.mtu, rules.target, rules.line, rules.stopped]
_HOSTS = [_sender_cpu, _receiver_cpu, _receiver_host, _no_window, _own_drops]
_SENDER = [path.cut_off, _all_sent, _sender_host, _windows]
_PATH = [path.queue, path.reordering, path.loss, _seen_by_the_receiver, _a_little]
TCP_RULES = [*_FIRST, *_HOSTS, *_SENDER, *_PATH]
