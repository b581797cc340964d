"""The figures of a test, from a document of either side. Nothing else computes them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from agent.iperf3.features import THREADED, release_of
from agent.iperf3.summary import Interval, Summary, Sums, read_intervals, read_summary
from agent.protocol import Figures, Flow, read_report
from agent.protocol.results import direction_of

# The points of a small curve.
_MOST_RATES = 120
# Seconds that iperf3 is late by its own clock.
_NEAR = 0.1
# In seconds: after less than that, a receiver of TCP may have read nothing of what arrived.
LONG_ENOUGH = 1.0


class _Way(NamedTuple):
    """What a document has of one direction, and whether it was written by the side that sends.

    `told` is UDP's sum, which is about the receiver. `is_cut` says that the other side has ended
    the test, of which it has not reported then.
    """

    by_sender: bool
    sent: Sums | None
    received: Sums | None
    told: Sums
    rows: list[Sums]
    is_cut: bool


def figures_of(summary: Summary, intervals: Sequence[Interval] | None = None) -> Figures:
    """What a document says of its test, without what its writer cannot know.

    Without the intervals there are no rates, and a receiver of iperf3 3.9 may count what was
    still on its way at the end. Before 3.14 only the sums tell that a test went both ways.
    """
    asked, end = summary.asked, summary.end
    if intervals is None and (summary.seconds or 0.0) < 0.9 * (asked.duration or 0.0):
        # It was cut short: 3.9 has no error then, and tells it by the intervals alone.
        summary = msgspec.structs.replace(summary, error=summary.error or "cut short")
    given = intervals or []
    is_cut = len(given) > 1 and given[-1] == given[-2]
    if intervals is not None and not intervals:
        # In its first second, iperf3 takes the time since the host has started for the test's.
        is_cut = bool(summary.error) or (summary.seconds or 0) > 2 * (asked.duration or math.inf)
    given = given[:-1] if is_cut else given
    rows = [each.sum for each in given if each.sum]
    by_sender = summary.is_servers == bool(asked.reverse)
    there = _Way(by_sender, end.sum_sent, end.sum_received, end.sum or Sums(), rows, is_cut)
    rows = [each.sum_bidir_reverse for each in given if each.sum_bidir_reverse]
    sent, received = end.sum_sent_bidir_reverse, end.sum_received_bidir_reverse
    back = _Way(summary.is_servers, sent, received, end.sum_bidir_reverse or Sums(), rows, is_cut)
    both = asked.bidir or sent or end.sum_bidir_reverse
    target = asked.target_bitrate or summary.start.target_bitrate or 0.0
    is_udp = asked.protocol == "UDP" or (asked.protocol is None and end.sum is not None)
    flows = [_flow(summary, there), *([_flow(summary, back)] if both else [])]
    return Figures(
        **msgspec.structs.asdict(flows[0]),
        direction=direction_of(asked.reverse, both),
        protocol="udp" if is_udp else "tcp",
        asked=target * max(1, asked.num_streams or 1) or None,
        overtime=_overtime(summary, flows),
        omitted=asked.omit or None,
        streams=asked.num_streams or 1,
        peer=summary.start.client,
        backward=flows[1] if both else None,
    )


def figures_in(result: msgspec.Raw) -> Figures:
    """The figures of a result: the agent's own, else those of iperf3's document."""
    if own := read_report(result).figures:
        return own
    return figures_of(read_summary(result) or Summary(), read_intervals(result))


def _overtime(summary: Summary, flows: list[Flow]) -> float | None:
    """How long a test of some bytes may have been over before iperf3 saw it, in seconds.

    A sender without a bitrate stops after its last block; a paced one goes on until then. A server
    knows of its client only that whole seconds are those of a clock.
    """
    asked, took = summary.asked, flows[0].seconds
    blocks = (asked.blksize or 0.0) * (asked.num_streams or 1)
    if not asked.bytes or all((each.carried or 0.0) > asked.bytes + blocks for each in flows):
        return None
    if summary.is_servers:
        return 1.0 if took >= 1 and took % 1 <= _NEAR else None
    is_threaded = release_of(summary.start.version or "") >= THREADED
    return min(took, asked.interval or 1.0) if is_threaded else None


def _flow(summary: Summary, way: _Way) -> Flow:
    out, got = _at_sender(summary, way), _at_receiver(summary, way)
    told = Sums() if got is None else way.told
    got = got or Sums()
    step = -(-len(way.rows) // _MOST_RATES) or 1
    return msgspec.structs.replace(
        _losses(told, out, got, summary.asked.blksize),
        sent=_rate(summary, way, out),
        received=_rate(summary, way, got),
        sent_bytes=out.bytes,
        received_bytes=got.bytes,
        retransmits=out.retransmits,
        jitter_ms=None if got.bytes == 0 else told.jitter_ms,
        rates=[each.bits_per_second or 0.0 for each in way.rows[::step]],
    )


def _rate(summary: Summary, way: _Way, sums: Sums) -> float | None:
    """The rate of a test, or of its whole intervals if the other side has ended it.

    iperf3 divides all bytes by the seconds of these then, and writes the last one a second time.
    One that waits for an answer at its end divides by that time as well.
    """
    planned, bits_per_second = summary.asked.duration or math.inf, sums.bits_per_second
    if bits_per_second is None or not way.is_cut:
        is_late = bits_per_second and summary.error and (summary.seconds or 0.0) > planned
        return (sums.bytes or 0.0) * 8 / planned if is_late else bits_per_second
    rows = [each for each in way.rows if not each.omitted]
    seconds = sum(each.seconds or 0.0 for each in rows)
    return sum(each.bytes or 0.0 for each in rows) * 8 / seconds if seconds else None


def _at_sender(summary: Summary, way: _Way) -> Sums:
    """What was sent; empty if the writer does not know it.

    A server is never told, and a client at the end. iperf3 3.9 has a single sum for UDP, whose
    bytes and rate are the sender's.
    """
    out = way.sent or way.told
    is_untold = summary.is_servers and not way.by_sender
    return Sums() if is_untold or ((summary.error or way.is_cut) and not out.bytes) else out


def _at_receiver(summary: Summary, way: _Way) -> Sums | None:
    """What has arrived; None if the writer does not know, empty if the document does not say."""
    got = way.received
    is_untold = (summary.error or way.is_cut) and not (got and got.bytes)
    if way.by_sender and (summary.is_servers or is_untold):
        return None
    if got is None and not way.by_sender:
        got = _counted(way)
    if got is None:
        return _remainder(summary, way)
    if got.bytes == 0 and not summary.end.sum and (summary.seconds or 0.0) < LONG_ENOUGH:
        return None
    # With `--skip-rx-copy` 16 bytes of a datagram are counted, and no datagram.
    return None if got.bytes and got.packets == 0 else got


def _counted(way: _Way) -> Sums | None:
    """What a receiver of iperf3 3.9 has counted itself: only its intervals say so."""
    if not way.rows or not way.told.seconds:
        return None
    rows = [each for each in way.rows if not each.omitted]
    arrived = sum(each.bytes or 0.0 for each in rows)
    packets = sum(each.packets or 0.0 for each in rows)
    bits_per_second = arrived * 8 / way.told.seconds
    return Sums(bytes=arrived, bits_per_second=bits_per_second, packets=packets)


def _remainder(summary: Summary, way: _Way) -> Sums | None:
    """What has arrived by the single sum of iperf3 3.9: what was sent without what was lost.

    A sender's has what omitted seconds have lost. The jitter is 0 if the receiver has counted no
    datagram (seen with servers of 3.9, 3.12 and 3.22): then 0 are lost, though none arrived.
    """
    told, asked = way.told, summary.asked
    packets, lost, seconds = told.packets or 0.0, told.lost_packets or 0.0, told.seconds
    if told.jitter_ms == 0 or (way.by_sender and asked.omit and lost):
        return None
    if not asked.blksize or not seconds or not 0 <= lost <= packets:
        return Sums()
    arrived = (packets - lost) * asked.blksize
    return Sums(bytes=arrived, bits_per_second=arrived * 8 / seconds, packets=packets)


def _losses(told: Sums, out: Sums, got: Sums, size: float | None) -> Flow:
    """Datagrams of `size` bytes lost and counted, and per cent; None for what cannot be so.

    A receiver knows the highest number that a datagram had, and how many bytes it got. What
    iperf3 makes of it depends on the versions of both sides, and on `omit`: if nothing arrives
    after the omitted seconds, some count down from there, below 0 or to nearly 2**64.
    """
    lost, packets, percent = told.lost_packets, told.packets, told.lost_percent
    if got.bytes is not None and size and packets is not None:
        counted = got.packets or 0.0
        packets = counted if 0 < counted < 2**63 else (out.bytes or 0.0) / size
        lost = max(0.0, packets - got.bytes / size)
        percent = 100 * lost / packets if packets else None
    if percent is None or not 0 <= percent <= 100:
        return Flow()
    return Flow(lost_packets=lost, packets=packets, lost_percent=percent)
