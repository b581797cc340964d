"""The figures of a test, from a document of either side. Nothing else computes them."""

from collections.abc import Callable, Sequence

import msgspec

from agent.iperf3.summary import Interval, Request, Summary, Sums, read_intervals, read_summary
from agent.protocol import Figures, Flow, read_report
from agent.quantities import rate

# The points of a small curve.
_MOST_RATES = 120


def figures_of(summary: Summary, intervals: Sequence[Interval] = ()) -> Figures:
    """What a document says of its test, without what its writer cannot know.

    Without the intervals there are no rates, and a receiver of iperf3 3.9 may count what was
    still on its way at the end. Before 3.14 only the sums tell that a test went both ways.
    """
    asked, end = summary.start.test_start or Request(), summary.end
    both = asked.bidir or end.sum_sent_bidir_reverse or end.sum_bidir_reverse
    is_udp = asked.protocol == "UDP" or (asked.protocol is None and end.sum is not None)
    return Figures(
        **msgspec.structs.asdict(_flow(summary, intervals, back=False)),
        direction="bidirectional" if both else "reverse" if asked.reverse else "forward",
        protocol="udp" if is_udp else "tcp",
        asked=(asked.target_bitrate or 0.0) * (asked.num_streams or 1) or None,
        backward=_flow(summary, intervals, back=True) if both else None,
    )


def figures_in(result: msgspec.Raw) -> Figures:
    """The figures of a result: the agent's own, else those of iperf3's document."""
    if own := read_report(result).figures:
        return own
    return figures_of(read_summary(result) or Summary(), read_intervals(result))


def throughput(figures: Figures) -> str:
    """The headline of a test: the rate at each receiver, in words. Empty when nobody knows it."""
    return of_each_way(figures, _headline)


def of_each_way(figures: Figures, words: Callable[[Flow], str]) -> str:
    """What there is to say of each flow; what is said of the way back begins with that."""
    said = zip(("", "back "), map(words, figures.flows))
    return ", ".join(way + text for way, text in said if text)


def _headline(flow: Flow) -> str:
    if flow.received is not None:
        return rate(flow.received)
    return "" if flow.sent is None else f"{rate(flow.sent)} sent"


def _flow(summary: Summary, intervals: Sequence[Interval], back: bool) -> Flow:
    end, asked = summary.end, summary.start.test_start or Request()
    sent, received, told = end.sum_sent, end.sum_received, end.sum
    rows = [each.sum for each in intervals if each.sum]
    if back:
        sent, received = end.sum_sent_bidir_reverse, end.sum_received_bidir_reverse
        told = end.sum_bidir_reverse
        rows = [each.sum_bidir_reverse for each in intervals if each.sum_bidir_reverse]
    is_server, from_client = bool(summary.start.accepted_connection), not (back or asked.reverse)
    is_sender = from_client != is_server
    own = sum(each.bytes or 0.0 for each in rows if not each.omitted) if rows else None
    told = told or Sums()
    # iperf3 3.9 has a single sum for UDP, whose bytes and rate are the sender's.
    out = sent or told
    got = received or _received(told, asked, None if is_sender else own)
    if received:
        # With `--skip-rx-copy` 16 bytes of a datagram are counted, and no datagram.
        unknown = received.packets == 0 if received.bytes else is_sender and bool(summary.error)
    else:
        # The single sum is the sender's own until the end, and has what omitted seconds have lost.
        unknown = is_sender and bool(summary.error or asked.omit and told.lost_packets)
    # A server is told nothing of the other side, and a client at the end.
    if unknown or is_server and is_sender:
        got, told = Sums(), Sums()
    if is_server and not is_sender or summary.error and not out.bytes:
        out = Sums()
    lost, packets, percent = _losses(told, out, got if received else None, asked)
    step = -(-len(rows) // _MOST_RATES) or 1
    return Flow(
        sent=out.bits_per_second,
        received=got.bits_per_second,
        sent_bytes=out.bytes,
        received_bytes=got.bytes,
        retransmits=out.retransmits,
        jitter_ms=None if got.bytes == 0 else told.jitter_ms,
        lost_packets=lost,
        packets=packets,
        lost_percent=percent,
        rates=[each.bits_per_second or 0.0 for each in rows[::step]],
    )


def _received(told: Sums, asked: Request, own: float | None) -> Sums:
    """The receiver's sum, which iperf3 gives from 3.10 on; `own` are bytes that it counted."""
    packets, lost, seconds = told.packets or 0.0, told.lost_packets or 0.0, told.seconds
    if not asked.blksize or not seconds or not 0 <= lost <= packets:
        return Sums()
    arrived = (packets - lost) * asked.blksize if own is None else own
    return Sums(bytes=arrived, bits_per_second=arrived * 8 / seconds)


def _losses(
    told: Sums, out: Sums, got: Sums | None, asked: Request
) -> tuple[float | None, float | None, float | None]:
    """Datagrams lost, datagrams counted, and per cent; None for what cannot be so.

    A receiver knows the highest number that a datagram had, and how many bytes it got. What
    iperf3 makes of it depends on the versions of both sides, and on `omit`: if nothing arrives
    after the omitted seconds, some count down from there, below 0 or to nearly 2**64.
    """
    lost, packets, percent = told.lost_packets, told.packets, told.lost_percent
    if got and got.bytes is not None and asked.blksize and packets is not None:
        counted = got.packets or 0.0
        packets = counted if 0 < counted < 2**63 else (out.bytes or 0.0) / asked.blksize
        lost = max(0.0, packets - got.bytes / asked.blksize)
        percent = 100 * lost / packets if packets else None
    if percent is None or not 0 <= percent <= 100:
        return None, None, None
    return lost, packets, percent
