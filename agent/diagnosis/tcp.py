"""What limited a TCP test: the rules, in the order in which they are tried."""

from agent.diagnosis import rules
from agent.diagnosis.ends import EMPTY, LITTLE_LOST, MUCH_LOST, Ends
from agent.diagnosis.rules import LONGEST_DELAY, VERY_BUSY, Found, is_lost_for_sure
from agent.protocol import Cause

# The shares of its receive buffer that a process leaves unread if it is behind, or holds up the
# test: half of the buffer is the window. Undisturbed ones left less than 0.1.
_BEHIND, _UNREAD, _SURELY_UNREAD = 0.2, 0.4, 0.5
# The shares of the time in which a sender waits for its buffer: may be, is, surely is the limit. A
# window may be from the first one on, and a receiver without room have dropped what came.
_A_LITTLE, _WAITS, _SURELY = 0.1, 0.3, 0.4
# The share of the time from which on that buffer, or a constant window, comes before a queue, and
# in which nothing passes if the path takes no full packet any more.
_MOSTLY = 0.5
# The shares of a bitrate that the sender sent, and that arrived where the slow start took time.
_SENT, _ARRIVED = 0.98, 0.9
# The shares of the time from which on a core may be what a receiver or a sender lacks.
_RATHER_BUSY, _HALF_BUSY = 0.7, 0.5
# The share of the time in which a sender that is not held up has something to send.
_ALWAYS = 0.9
# A receiver's window that carries no more than this times the rate is full, and a send buffer that
# carries more than that is not what limits it.
_FULL, _ROOMY = 1.5, 4.0
# Milliseconds of a queue that is longer than what a loaded host adds, and below which surely none
# stands, with the share of the base.
_LONG_QUEUE, _NO_QUEUE, _NO_QUEUE_SHARE = 2.0, 0.5, 0.02
# The shares of the time in which something is lost: steadily, and at one time alone.
_STEADILY, _AT_ONCE = 0.7, 0.5


def _mtu(ends: Ends) -> Found | None:
    """Small packets pass and full ones do not; with tcp_mtu_probing the segments shrink then."""
    sender = ends.sender
    if (sender.timeouts or 0) < 2 * ends.streams or not sender.mss:
        return None
    if sender.acked is not None and sender.acked < sender.mss * ends.streams:
        return Found(Cause.PATH_MTU, sure=sender.orderly)
    # Full ones of IPv6 with time stamps lack 72 bytes, and the kernel looks for no last 8 again.
    shrunk = sender.mss < min(sender.first_mss or 0, (sender.pmtu or 0) - 80)
    # On a path that has died they shrink as well.
    return Found(Cause.PATH_MTU, sure=True) if shrunk and sender.orderly else None


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
    sure = ends.receiver.load >= VERY_BUSY and ends.unread >= _BEHIND
    return Found(Cause.RECEIVER_CPU, sure=sure) if ends.receiver.is_busy else None


def _receiver_host(ends: Ends) -> Found | None:
    """It leaves unread what has arrived; for want of a core it does so as well."""
    sure = ends.unread >= _SURELY_UNREAD and ends.is_calm
    return Found(Cause.RECEIVER_HOST, sure=sure) if ends.unread >= _UNREAD else None


def _no_window(ends: Ends) -> Found | None:
    """A window of 0 is somebody who does not read, and no small window."""
    found = ends.sender.window_bytes == 0 and ends.waits_for_window >= _A_LITTLE
    return Found(Cause.RECEIVER_HOST, why="no window") if found else None


def _own_drops(ends: Ends) -> Found | None:
    return rules.own_drops(ends, ends.sender.retransmitted or 0, 1 / 3) if ends.has_loss else None


def _cut_off(ends: Ends) -> Found | None:
    """Full packets stopped passing in mid-test, and iperf3's small ones did not."""
    sender = ends.sender
    found = sender.orderly and (sender.silent_share or 0.0) >= _MOSTLY
    many = (sender.timeouts or 0) >= 2 * ends.streams
    return Found(Cause.PATH_MTU, why="cut off") if found and many else None


def _all_sent(ends: Ends) -> Found | None:
    """The sender sent all that it was asked for; on a long path a little of it is still to come."""
    asked, queued = ends.asked or 0.0, ends.sender.queued_share
    sent = (ends.sent or 0.0) >= _SENT * asked and ends.is_at(asked, _ARRIVED)
    found = sent and queued is not None and queued < EMPTY and not ends.has_queue
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
    share = ends.waits_for_buffer
    if ends.has_queue:
        waits = ends.waits_for_window >= _MOSTLY and ends.is_window_constant
        if ends.is_window_full and waits:
            return Found(Cause.RECEIVER_WINDOW)
        if share >= _MOSTLY:
            return Found(Cause.SEND_BUFFER)
    if (ends.has_queue or ends.lost_share >= MUCH_LOST) and ends.room > 2:
        return None
    # A queue of less than a millisecond may make the path many times longer.
    is_direct = ends.rise <= ends.base
    if ends.is_window_full:
        clear = is_direct and ends.is_window_constant and not (ends.has_loss or ends.has_queue)
        has_cpu = not (ends.sender.is_busy or ends.receiver.is_busy)
        return Found(Cause.RECEIVER_WINDOW, sure=clear and has_cpu)
    if share >= _WAITS and not ends.has_queue:
        sure = share >= _SURELY and ends.buffer_room <= _ROOMY and is_direct
        return Found(Cause.SEND_BUFFER, sure=sure)
    return None


def _queue(ends: Ends) -> Found | None:
    """Packets wait; without a loss it may be the acknowledgements that do, on their way back."""
    if not (ends.knows_sender and ends.has_queue):
        return None
    sender = ends.sender
    free = max(ends.waits_for_window, ends.waits_for_buffer) < _A_LITTLE
    stood_still = sender.silent_share or sender.timeouts
    # A rise may be the jitter of a path on which a policer drops, which it does steadily.
    is_steady = (sender.lossy_share or 0.0) >= _STEADILY and is_lost_for_sure(ends)
    is_long = ends.rise >= max(_LONG_QUEUE, ends.base * is_steady)
    clear = free and is_long and ends.has_loss and not (stood_still or sender.both_ways)
    alone = ends.rise >= LONGEST_DELAY or is_lost_for_sure(ends)
    sure = not ends.receiver.is_busy if ends.knows_receiver else alone
    return Found(Cause.PATH_CAPACITY, sure=clear and sure)


def _reordering(ends: Ends) -> Found | None:
    """Packets overtake each other, and what is late is sent again."""
    sender = ends.sender
    needless, again = sender.needless or 0, sender.retransmitted or 0
    # After a real loss the kernel sees some as well.
    most = needless * 2 > again and not is_lost_for_sure(ends)
    found = (sender.reordered and not ends.has_loss) or most
    found = found and again >= MUCH_LOST * (sender.segments or 0)
    return Found(Cause.UNKNOWN, why="reordering") if found else None


def _loss(ends: Ends) -> Found | None:
    """What is lost at one time alone has filled a queue that is short for the path."""
    sender, share = ends.sender, ends.sender.lossy_share
    if not ends.has_loss:
        return None
    if share is not None and share <= _AT_ONCE:
        is_queue = ends.rise >= _LONG_QUEUE
        return Found(Cause.PATH_CAPACITY if is_queue else Cause.PATH_LOSS, why="lost at once")
    steady = (share or 0.0) >= _STEADILY and sender.silent_share == 0
    direct = ends.rise < max(_NO_QUEUE, ends.base * _NO_QUEUE_SHARE)
    free = ends.waits_for_window < _A_LITTLE and ends.lost * 2 >= (sender.retransmitted or 0)
    clear = steady and direct and free and not (sender.stopped or ends.receiver.stopped)
    both = ends.knows_receiver and is_lost_for_sure(ends)
    return Found(Cause.PATH_LOSS, sure=clear and both, why="lost steadily")


def _seen_by_the_receiver(ends: Ends) -> Found | None:
    """What a receiver can tell of the path, and is never sure of."""
    if ends.knows_sender:
        return None
    if 0 < ends.room <= _FULL:
        return Found(Cause.RECEIVER_WINDOW)
    if ends.has_queue:
        return Found(Cause.PATH_CAPACITY)
    found = (ends.receiver.out_of_order or 0) >= 3 and ends.behind_holes >= LITTLE_LOST
    return Found(Cause.PATH_LOSS, why="out of order") if found else None


def _a_little(ends: Ends) -> Found | None:
    """What may be the limit when nothing else is."""
    waits = ends.waits_for_window >= _A_LITTLE and ends.is_window_constant
    if waits and 0 < ends.room <= _FULL:
        return Found(Cause.RECEIVER_WINDOW)
    if ends.waits_for_buffer >= _A_LITTLE:
        return Found(Cause.SEND_BUFFER)
    # It leaves no queue.
    is_bbr = (ends.sender.congestion or "").startswith("bbr")
    found = is_bbr and not ends.is_starved
    return Found(Cause.PATH_CAPACITY, why="no queue") if found else None


_FIRST = [rules.too_short, _mtu, rules.target, rules.line, rules.stopped]
_HOSTS = [_sender_cpu, _receiver_cpu, _receiver_host, _no_window, _own_drops]
_SENDER = [_cut_off, _all_sent, _sender_host, _windows]
_PATH = [_queue, _reordering, _loss, _seen_by_the_receiver, _a_little]
TCP_RULES = [*_FIRST, *_HOSTS, *_SENDER, *_PATH]
