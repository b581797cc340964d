"""The figures of a test, from a document of either side. Nothing else computes them."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from agent.iperf3.summary import (
    Interval,
    IntervalSum,
    Request,
    Summary,
    Sums,
    read_intervals,
    read_summary,
)
from agent.protocol import Figures, Flow, read_report
from agent.quantities import rate

# The points of a small curve.
_MOST_RATES = 120


class Way(NamedTuple):
    """What a document says of one direction. `single` is UDP's sum, with the receiver's losses."""

    from_client: bool
    sent: Sums | None
    received: Sums | None
    single: Sums | None
    rows: list[IntervalSum]


def ways(summary: Summary, intervals: Sequence[Interval]) -> list[Way]:
    """The direction of a test, or both. Before 3.14 only the sums tell that there are two."""
    asked, end = summary.start.test_start or Request(), summary.end
    back = end.sum_sent_bidir_reverse, end.sum_received_bidir_reverse, end.sum_bidir_reverse
    back_rows = [each.sum_bidir_reverse for each in intervals if each.sum_bidir_reverse]
    rows = [each.sum for each in intervals if each.sum]
    forth = Way(not asked.reverse, end.sum_sent, end.sum_received, end.sum, rows)
    if asked.bidir or back_rows or any(back):
        return [forth, Way(False, *back, back_rows)]
    return [forth]


def figures_of(summary: Summary, intervals: Sequence[Interval] = ()) -> Figures:
    """What a document says of its test, without what its writer cannot know.

    Without the intervals there are no rates, and a receiver of iperf3 3.9 may count what was
    still on its way at the end.
    """
    asked = summary.start.test_start or Request()
    forth, *back = ways(summary, intervals)
    return Figures(
        **msgspec.structs.asdict(_flow(summary, asked, forth)),
        direction="bidirectional" if back else "forward" if forth.from_client else "reverse",
        protocol="udp" if _is_udp(asked, forth) else "tcp",
        backward=_flow(summary, asked, back[0]) if back else None,
    )


def figures_in(result: msgspec.Raw) -> Figures:
    """The figures of a result: the agent's own, else those of iperf3's document."""
    if own := read_report(result).figures:
        return own
    return figures_of(read_summary(result) or Summary(), read_intervals(result))


def throughput(figures: Figures) -> str:
    """The headline of a test: the rate at each receiver, in words. Empty when nobody knows it."""
    words = [
        rate(flow.received) if flow.received is not None else f"{rate(flow.sent or 0)} sent"
        for flow in figures.flows
        if flow.is_known
    ]
    return ", back ".join(words)


def _flow(summary: Summary, asked: Request, way: Way) -> Flow:
    told = way.single or Sums()
    here_sends = way.from_client != bool(summary.start.accepted_connection)
    # iperf3 3.9 has a single sum for UDP, whose bytes and rate are the sender's.
    sent = way.sent or told
    received = way.received or _received(told, asked.blksize, [] if here_sends else way.rows)
    if here_sends and not _has_reported(summary, received):
        received, told = Sums(), Sums()
    elif not here_sends and not _has_reported(summary, sent):
        sent = Sums()
    lost, packets, percent = _losses(summary, asked, way, told, sent)
    step = -(-len(way.rows) // _MOST_RATES) or 1
    return Flow(
        sent=sent.bits_per_second,
        received=received.bits_per_second,
        sent_bytes=sent.bytes,
        received_bytes=received.bytes,
        retransmits=None if _is_udp(asked, way) else sent.retransmits,
        jitter_ms=told.jitter_ms,
        lost_packets=lost,
        packets=packets,
        lost_percent=percent,
        rates=[each.bits_per_second or 0.0 for each in way.rows[::step]],
    )


def _is_udp(asked: Request, way: Way) -> bool:
    return asked.protocol == "UDP" or (asked.protocol is None and way.single is not None)


def _has_reported(summary: Summary, other: Sums) -> bool:
    """Whether the other side's figures are known. A server gets none, a client in the end."""
    return not summary.start.accepted_connection and bool(other.bytes or not summary.error)


def _received(told: Sums, size: float | None, rows: list[IntervalSum]) -> Sums:
    """The receiver's sum, which iperf3 gives from 3.10 on. The `rows` are the receiver's own."""
    packets, lost, seconds = told.packets or 0.0, told.lost_packets or 0.0, told.seconds
    if not size or not seconds or not 0 <= lost <= packets:
        return Sums()
    own = sum(each.bytes or 0.0 for each in rows if not each.omitted)
    arrived = own or (packets - lost) * size
    return Sums(bytes=arrived, bits_per_second=arrived * 8 / seconds)


def _losses(
    summary: Summary, asked: Request, way: Way, told: Sums, sent: Sums
) -> tuple[float | None, float | None, float | None]:
    """Datagrams lost, datagrams counted, and per cent; None for what cannot be so.

    A receiver knows the highest number that a datagram had, and how many bytes it got. What
    iperf3 makes of it depends on the versions of both sides, and on `omit`.
    """
    lost, packets, percent = told.lost_packets, told.packets, told.lost_percent
    got, size = way.received, asked.blksize
    if got and got.bytes is not None and size and packets is not None:
        packets = got.packets or (sent.bytes or 0.0) / size
        lost = max(0.0, packets - got.bytes / size)
        percent = 100 * lost / packets if packets else None
    elif lost and asked.omit and way.from_client and not summary.start.accepted_connection:
        # 3.9 adds what was lost in the omitted seconds, and nothing tells how much that is.
        percent = None
    if percent is None or not 0 <= percent <= 100:
        return None, None, None
    return lost, packets, percent
