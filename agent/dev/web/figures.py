"""What the page shows of a result: sums, and a reading for each interval."""

from statistics import fmean

from msgspec import Raw, Struct

from agent.iperf3.summary import IntervalSum, Request, Summary, Sums, read_intervals, read_summary

# Enough for a smooth curve, and few enough that a test of a day does not bloat the page.
MOST_READINGS = 200
# Beyond any network and any test: a reading above these is wrong.
_MOST_RATE, _MOST_SECONDS = 1e15, 1e6


class Reading(Struct, frozen=True):
    """The mean throughput, in bit/s, from `start` to `end` seconds after the test began."""

    start: float
    end: float
    rate: float

    @property
    def middle(self) -> float:
        """Its middle, in seconds after the test began."""
        return (self.start + self.end) / 2


class Direction(Struct, frozen=True):
    """One direction of a test: the sums of both ends, and the client's readings.

    `received` is None where iperf3 gives a single sum, which then has the receiver's losses.
    """

    from_client: bool
    sent: Sums
    received: Sums | None
    readings: list[Reading]


def read_directions(result: Raw) -> list[Direction]:
    """The directions of a client's result; none when the result has no figures."""
    summary = read_summary(result) or Summary()
    intervals, end = read_intervals(result), summary.end
    asked = summary.start.test_start or Request()
    forward = Direction(
        not asked.reverse,
        end.sum_sent or end.sum or Sums(),
        end.sum_received,
        _readings([interval.sum for interval in intervals]),
    )
    backward = Direction(
        False,
        end.sum_sent_bidir_reverse or end.sum_bidir_reverse or Sums(),
        end.sum_received_bidir_reverse,
        _readings([interval.sum_bidir_reverse for interval in intervals]),
    )
    return [way for way in (forward, backward) if way.readings or way.sent != Sums()]


def mean(readings: list[Reading]) -> float:
    """The mean throughput of one or more readings, in bit/s."""
    lengths = [reading.end - reading.start for reading in readings]
    return fmean([reading.rate for reading in readings], lengths)


def _readings(sums: list[IntervalSum | None]) -> list[Reading]:
    """At most MOST_READINGS: of more, neighbours are merged. Omitted intervals are left out."""
    found = [_reading(each) for each in sums if each and not each.omitted]
    readings = [reading for reading in found if reading]
    group = -(-len(readings) // MOST_READINGS) or 1
    parts = [readings[at : at + group] for at in range(0, len(readings), group)]
    return [Reading(part[0].start, part[-1].end, mean(part)) for part in parts]


def _reading(each: IntervalSum) -> Reading | None:
    start, end, rate = each.start, each.end, each.bits_per_second
    if start is None or end is None or rate is None:
        return None
    if not (0 <= start < end <= _MOST_SECONDS and 0 <= rate <= _MOST_RATE):
        return None
    return Reading(start, end, rate)
