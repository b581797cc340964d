"""A throughput curve as the coordinates of an SVG drawing."""

import math

from msgspec import Struct

from agent import quantities
from agent.dev.web.figures import Direction, Reading, mean

# The drawing is 640 wide and 245 high, and is scaled to the width of the page.
LEFT, RIGHT, TOP, BOTTOM = 62, 612, 44, 214
# The shortest interval that iperf3 reports.
_LEAST_SECONDS = 0.1
# More would overlap, and none are drawn.
_MOST_DOTS = 30


class Tick(Struct, frozen=True):
    """A line of the grid: its place and its label."""

    at: float
    label: str


class Dot(Struct, frozen=True):
    """A reading: its place, and its figures in words."""

    x: float
    y: float
    words: str


class Line(Struct, frozen=True):
    """One direction's readings: a path, the path of the area below it, and its dots."""

    path: str
    area: str
    dots: list[Dot]


class Curve(Struct, frozen=True):
    """A drawing. `unit` belongs to the vertical axis; `words` describe it all."""

    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    unit: str
    words: str


def draw(directions: list[Direction]) -> Curve | None:
    """The curve of a test; None when it has no readings."""
    drawn = [way.readings for way in directions if way.readings]
    if not drawn:
        return None
    seconds = max(_LEAST_SECONDS, *(readings[-1].end for readings in drawn))
    fastest = max(1.0, *(reading.rate for readings in drawn for reading in readings))
    prefix, scale = quantities.prefix(fastest)
    rates = _ticks(fastest / scale, most=5, beyond=True)
    frame = _Frame(seconds, rates[-1] * scale)
    return Curve(
        [_line(readings, frame) for readings in drawn],
        [Tick(frame.x(tick), f"{tick:g} s") for tick in _ticks(seconds, most=6, beyond=False)],
        [Tick(frame.y(tick * scale), f"{tick:g}") for tick in rates],
        f"{prefix}bit/s",
        "; ".join(_words(readings) for readings in drawn),
    )


class _Frame(Struct, frozen=True):
    """How far the axes reach, in seconds and bit/s."""

    seconds: float
    rate: float

    def x(self, seconds: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * seconds / self.seconds, 1)

    def y(self, rate: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * rate / self.rate, 1)


def _line(readings: list[Reading], frame: _Frame) -> Line:
    """A point in the middle of each reading; level before the first and after the last."""
    dots = [
        Dot(
            frame.x((reading.start + reading.end) / 2),
            frame.y(reading.rate),
            f"{reading.start:g} to {reading.end:g} s: {quantities.rate(reading.rate)}",
        )
        for reading in readings
    ]
    first, last = frame.x(readings[0].start), frame.x(readings[-1].end)
    points = [f"{first} {dots[0].y}", *(f"{dot.x} {dot.y}" for dot in dots), f"{last} {dots[-1].y}"]
    path = "M" + " L".join(points)
    area = f"{path} L{last} {BOTTOM} L{first} {BOTTOM} Z"
    return Line(path, area, dots if len(dots) <= _MOST_DOTS else [])


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
