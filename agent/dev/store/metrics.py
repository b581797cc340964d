"""The figures that the Manager reads from a client's result."""

import msgspec
from msgspec import Struct


class TestMetrics(Struct):
    """A test's figures: bits per second, packets, milliseconds, percent; None if unknown."""

    bps_avg: float | None = None
    retransmits: int | None = None
    jitter_ms: float | None = None
    loss_pct: float | None = None


class _Sum(Struct, frozen=True):
    bits_per_second: float | None = None
    retransmits: int | None = None
    jitter_ms: float | None = None
    lost_percent: float | None = None


class _End(Struct, frozen=True):
    sum_sent: _Sum = _Sum()
    sum: _Sum = _Sum()


class _Document(Struct, frozen=True):
    end: _End = _End()


def read(result: msgspec.Raw) -> TestMetrics:
    """The figures of an iperf3 document; of anything else, none."""
    try:
        end = msgspec.json.decode(result, type=_Document).end
    except (msgspec.ValidationError, RecursionError):
        return TestMetrics()
    sent = end.sum_sent
    return TestMetrics(
        sent.bits_per_second, sent.retransmits, end.sum.jitter_ms, end.sum.lost_percent
    )
