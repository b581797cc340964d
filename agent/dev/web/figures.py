"""What the page shows of a result: sums, a reading for each interval, and remarks."""

from msgspec import Raw, Struct, ValidationError, json

from agent.error_classes import ErrorClass

# Enough for a smooth curve, few enough for a page of moderate size after a test of a day.
MOST_READINGS = 200
# Beyond any network and any test: a reading over these is a fault of who wrote it.
_MOST_RATE, _MOST_SECONDS = 1e15, 1e6


class Sum(Struct, frozen=True):
    """DrawnFigures over all streams: bit/s, bytes, milliseconds, percent; None where unknown."""

    bits_per_second: float | None = None
    bytes: float | None = None
    retransmits: float | None = None
    jitter_ms: float | None = None
    lost_packets: float | None = None
    packets: float | None = None
    lost_percent: float | None = None


class Reading(Struct, frozen=True):
    """The mean throughput, in bit/s, from `start` to `end` seconds after the test's begin."""

    start: float
    end: float
    rate: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start


class Direction(Struct, frozen=True):
    """One way that data went: both ends' sums, and the readings that the client took.

    `received` is None where iperf3 gives a single sum, which then has the receiver's losses.
    """

    from_client: bool
    sent: Sum
    received: Sum | None
    readings: list[Reading]


class DrawnFigures(Struct, frozen=True):
    """What a client's result says; `error_class` is None when it succeeded."""

    directions: list[Direction]
    warnings: list[str]
    error_class: ErrorClass | None
    iperf3_version: str


class _IntervalSum(Struct, frozen=True):
    start: float | None = None
    end: float | None = None
    bits_per_second: float | None = None
    omitted: bool = False


class _DrawnInterval(Struct, frozen=True):
    sum: _IntervalSum = _IntervalSum()
    sum_bidir_reverse: _IntervalSum | None = None


class _DrawnEnd(Struct, frozen=True):
    """iperf3 3.9 has only `sum` for UDP."""

    sum: Sum | None = None
    sum_sent: Sum | None = None
    sum_received: Sum | None = None
    sum_bidir_reverse: Sum | None = None
    sum_sent_bidir_reverse: Sum | None = None
    sum_received_bidir_reverse: Sum | None = None


class _DrawnRequest(Struct, frozen=True):
    reverse: int = 0


class _DrawnStart(Struct, frozen=True):
    test_start: _DrawnRequest = _DrawnRequest()


class _DrawnReport(Struct, frozen=True):
    warnings: list[str] = []
    error_class: ErrorClass | None = None
    iperf3_version: str = ""


class _DrawnResult(Struct, frozen=True):
    start: _DrawnStart = _DrawnStart()
    intervals: list[_DrawnInterval] = []
    end: _DrawnEnd = _DrawnEnd()
    agent: _DrawnReport = _DrawnReport()


def read(result: Raw) -> DrawnFigures:
    """The figures of a client's result; of anything that is none, empty ones."""
    try:
        found = json.decode(result, type=_DrawnResult)
    except (ValidationError, RecursionError):
        found = _DrawnResult()
    end = found.end
    forward = Direction(
        not found.start.test_start.reverse,
        end.sum_sent or end.sum or Sum(),
        end.sum_received,
        _readings([interval.sum for interval in found.intervals]),
    )
    backward = Direction(
        False,
        end.sum_sent_bidir_reverse or end.sum_bidir_reverse or Sum(),
        end.sum_received_bidir_reverse,
        _readings([interval.sum_bidir_reverse for interval in found.intervals]),
    )
    directions = [way for way in (forward, backward) if way.readings or way.sent != Sum()]
    report = found.agent
    return DrawnFigures(directions, report.warnings, report.error_class, report.iperf3_version)


def mean(readings: list[Reading]) -> float:
    """The mean throughput of one or more readings, in bit/s."""
    seconds = sum(reading.seconds for reading in readings)
    return sum(reading.rate * reading.seconds for reading in readings) / seconds


def _readings(sums: list[_IntervalSum] | list[_IntervalSum | None]) -> list[Reading]:
    """At most MOST_READINGS, neighbours made one where there are more; omitted seconds are not
    counted by iperf3 either.
    """
    found = [_reading(each) for each in sums if each and not each.omitted]
    readings = [reading for reading in found if reading]
    group = -(-len(readings) // MOST_READINGS) or 1
    parts = [readings[at : at + group] for at in range(0, len(readings), group)]
    return [Reading(part[0].start, part[-1].end, mean(part)) for part in parts]


def _reading(each: _IntervalSum) -> Reading | None:
    start, end, rate = each.start, each.end, each.bits_per_second
    if start is None or end is None or rate is None:
        return None
    if not (0 <= start < end <= _MOST_SECONDS and 0 <= rate <= _MOST_RATE):
        return None
    return Reading(start, end, rate)
