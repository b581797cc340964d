"""The figures that the Manager reads from a client's result."""

import msgspec
from msgspec import Struct


class ResultMetrics(Struct):
    """A test's figures: bits per second, packets, milliseconds, percent; None if unknown."""

    bps_avg: float | None = None
    retransmits: int | None = None
    jitter_ms: float | None = None
    loss_pct: float | None = None


class _ResultSum(Struct, frozen=True):
    bits_per_second: float | None = None
    retransmits: int | None = None
    jitter_ms: float | None = None
    lost_percent: float | None = None


class _ResultEnd(Struct, frozen=True):
    sum_sent: _ResultSum = _ResultSum()
    sum: _ResultSum = _ResultSum()


class _ResultDocument(Struct, frozen=True):
    end: _ResultEnd = _ResultEnd()


def read(result: msgspec.Raw) -> ResultMetrics:
    """The figures of an iperf3 document; of anything else, none."""
    try:
        end = msgspec.json.decode(result, type=_ResultDocument).end
    except (msgspec.ValidationError, RecursionError):
        return ResultMetrics()
    sent = end.sum_sent
    return ResultMetrics(
        sent.bits_per_second, sent.retransmits, end.sum.jitter_ms, end.sum.lost_percent
    )
