"""What the page shows of a result: sums, a reading for each interval, and a curve of those."""

import math
from collections.abc import Sequence
from datetime import datetime
from statistics import fmean

from msgspec import Raw, Struct

from agent import quantities
from agent.iperf3.summary import Sums, read_intervals
from agent.protocol import Flow

# Enough for a smooth curve, and few enough that a test of a day does not bloat the page.
MOST_READINGS = 200
# Beyond any network and any test: a reading above these is wrong.
_MOST_RATE, _MOST_SECONDS = 1e15, 1e6
# The shortest interval that iperf3 reports.
_LEAST_SECONDS = 0.1
# The drawing is 640 wide and 245 high, and is scaled to the width of the page.
LEFT, RIGHT, TOP, BOTTOM = 62, 612, 44, 214


class Reading(Struct, frozen=True):
    """The mean throughput, in bit/s, from `start` to `end` seconds after the test began."""

    start: float
    end: float
    rate: float

    @property
    def middle(self) -> float:
        """Its middle, in seconds after the test began."""
        return (self.start + self.end) / 2


class Direction(Struct):
    """One direction of a test: both ends, their figures, and the client's readings."""

    sender: str
    receiver: str
    flow: Flow
    readings: list[Reading] = []


class Curve:
    """A curve for each direction that has readings, in an SVG drawing; `words` describe them.

    `x_ticks` are in seconds, `y_ticks` in units of `scale` bit/s, which `unit` names.
    """

    def __init__(self, lines: list[list[Reading]]) -> None:
        self.lines = lines
        self.seconds = max(_LEAST_SECONDS, *(readings[-1].end for readings in lines))
        fastest = max(1.0, *(reading.rate for readings in lines for reading in readings))
        prefix, self.scale = quantities.prefix(fastest)
        self.unit = f"{prefix}bit/s"
        self.x_ticks = _ticks(self.seconds, most=6, beyond=False)
        self.y_ticks = _ticks(fastest / self.scale, most=5, beyond=True)
        self.words = "; ".join(map(_words, lines))

    def x(self, seconds: float) -> float:
        """Where a moment is."""
        return round(LEFT + (RIGHT - LEFT) * seconds / self.seconds, 1)

    def y(self, rate: float) -> float:
        """Where a rate in bit/s is."""
        return round(BOTTOM - (BOTTOM - TOP) * rate / (self.y_ticks[-1] * self.scale), 1)

    def path(self, readings: list[Reading]) -> str:
        """A point in the middle of each reading; level before the first and after the last."""
        moments = [readings[0].start, *(each.middle for each in readings), readings[-1].end]
        rates = [each.rate for each in (readings[0], *readings, readings[-1])]
        points = [f"{self.x(at)} {self.y(rate)}" for at, rate in zip(moments, rates)]
        return "M" + " L".join(points)


def read_result(result: Raw) -> list[list[Reading]]:
    """The readings of both directions; only a test both ways has some of the second."""
    rows = [(each.sum, each.sum_bidir_reverse) for each in read_intervals(result)]
    return [_readings([sums[back] for sums in rows]) for back in (0, 1)]


def read_rates(rates: list[tuple[datetime, float]], begun: datetime) -> list[Reading]:
    """The readings of a test that runs, by rates in bit/s of the second before some moments."""
    ends = [((at - begun).total_seconds(), rate) for at, rate in rates]
    sums = [Sums(start=max(0.0, end - 1), end=end, bits_per_second=rate) for end, rate in ends]
    return _readings(sums)


def mean(readings: list[Reading]) -> float:
    """The mean throughput of one or more readings, in bit/s."""
    lengths = [reading.end - reading.start for reading in readings]
    return fmean([reading.rate for reading in readings], lengths)


def _readings(sums: Sequence[Sums | None]) -> list[Reading]:
    """At most MOST_READINGS: of more, neighbours are merged. Omitted intervals are left out."""
    found = [_reading(each) for each in sums if each and not each.omitted]
    readings = [reading for reading in found if reading]
    group = -(-len(readings) // MOST_READINGS) or 1
    parts = [readings[at : at + group] for at in range(0, len(readings), group)]
    return [Reading(part[0].start, part[-1].end, mean(part)) for part in parts]


def _reading(each: Sums) -> Reading | None:
    start, end, rate = each.start, each.end, each.bits_per_second
    if start is None or end is None or rate is None:
        return None
    fits = 0 <= start < end <= _MOST_SECONDS and 0 <= rate <= _MOST_RATE
    return Reading(start, end, rate) if fits else None


def _words(readings: list[Reading]) -> str:
    rates = [reading.rate for reading in readings]
    shown = [quantities.rate(rate) for rate in (min(rates), mean(readings), max(rates))]
    words = "Throughput over {:.3g} s: at least {}, on average {}, at most {}"
    return words.format(readings[-1].end, *shown)


def _ticks(limit: float, most: int, beyond: bool) -> list[float]:
    """Round numbers from 0 up to `limit` or, with `beyond`, to the first one that reaches it.

    There are at most `most` steps, each of 1, 2 or 5 times a power of ten.
    """
    power = 10 ** math.floor(math.log10(limit / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * most >= limit)
    count = math.ceil(limit / step) if beyond else math.floor(limit / step)
    return [round(step * number, 9) for number in range(count + 1)]
