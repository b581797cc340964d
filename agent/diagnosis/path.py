"""What a sender of TCP sees of the path: queues, losses, another order, packets too large."""

from agent.diagnosis.ends import MUCH_LOST, Ends
from agent.diagnosis.rules import LONGEST_DELAY, Found, is_lost_for_sure
from agent.protocol import Cause

# Milliseconds: a queue that is longer than what a loaded host adds.
_LONG_QUEUE = 2.0
# Milliseconds, and the share of the base, below which surely no queue stands.
_NO_QUEUE, _NO_QUEUE_SHARE = 0.5, 0.02
# The shares of the time in which something is lost: steadily, and at one time alone.
_STEADILY, _AT_ONCE = 0.7, 0.5
# The share of the time in which a sender waits for a window or a buffer that may be the limit; a
# receiver that has no room for what came drops it, and that looks like loss.
_USED = 0.1
# The share of the time in which nothing passes if the path takes no full packet any more.
_MOSTLY = 0.5


def mtu(ends: Ends) -> Found | None:
    """Small packets pass and full ones do not; with tcp_mtu_probing the segments shrink then."""
    sender = ends.sender
    if (sender.timeouts or 0) < 2 * ends.streams or not sender.mss:
        return None
    if sender.acked is not None and sender.acked < sender.mss * ends.streams:
        return Found(Cause.PATH_MTU, sure=sender.orderly)
    shrunk = sender.mss < (sender.first_mss or 0) and sender.mss < (sender.pmtu or 0) - 72
    return Found(Cause.PATH_MTU, sure=True) if shrunk else None


def cut_off(ends: Ends) -> Found | None:
    """Full packets stopped passing in mid-test, and iperf3's small ones did not."""
    sender = ends.sender
    found = sender.orderly and (sender.silent_share or 0.0) >= _MOSTLY
    many = (sender.timeouts or 0) >= 2 * ends.streams
    return Found(Cause.PATH_MTU, why="cut off") if found and many else None


def queue(ends: Ends) -> Found | None:
    """Packets wait; without a loss it may be the acknowledgements that do, on their way back."""
    if not (ends.knows_sender and ends.has_queue):
        return None
    sender = ends.sender
    free = max(sender.receiver_window_share or 0.0, sender.send_buffer_share or 0.0) < _USED
    stood_still = sender.silent_share or sender.timeouts
    clear = free and ends.has_loss and not (stood_still or sender.both_ways)
    if ends.knows_receiver:
        sure = ends.rise >= _LONG_QUEUE and not ends.receiver.is_busy
    else:
        sure = ends.rise >= LONGEST_DELAY or is_lost_for_sure(ends)
    return Found(Cause.PATH_CAPACITY, sure=clear and sure)


def reordering(ends: Ends) -> Found | None:
    """Packets overtake each other, and what is late is sent again."""
    sender = ends.sender
    needless, again = sender.needless or 0, sender.retransmitted or 0
    # After a real loss the kernel sees some as well.
    found = (sender.reordered and not ends.has_loss) or needless * 2 > again
    found = found and again >= MUCH_LOST * (sender.segments or 0)
    return Found(Cause.UNKNOWN, why="reordering") if found else None


def loss(ends: Ends) -> Found | None:
    """What is lost at one time alone has filled a queue that is short for the path."""
    sender, share = ends.sender, ends.sender.lossy_share
    if not ends.has_loss:
        return None
    if share is not None and share <= _AT_ONCE:
        is_queue = ends.rise >= _LONG_QUEUE
        return Found(Cause.PATH_CAPACITY if is_queue else Cause.PATH_LOSS, why="lost at once")
    steady = (share or 0.0) >= _STEADILY and sender.silent_share == 0
    direct = ends.rise < max(_NO_QUEUE, ends.base * _NO_QUEUE_SHARE)
    free = (sender.receiver_window_share or 0.0) < _USED
    clear = steady and direct and free and not (sender.stopped or ends.receiver.stopped)
    both = ends.knows_receiver and is_lost_for_sure(ends)
    return Found(Cause.PATH_LOSS, sure=clear and both, why="lost steadily")
