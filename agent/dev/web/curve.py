"""A throughput curve, and where its parts are in an SVG drawing."""

import math

from msgspec import Struct

from agent import quantities
from agent.dev.web.figures import Direction, Reading, mean

# The drawing is 640 wide and 245 high, and is scaled to the width of the page.
LEFT, RIGHT, TOP, BOTTOM = 62, 612, 44, 214
# The shortest interval that iperf3 reports.
_LEAST_SECONDS = 0.1


class Curve(Struct, frozen=True):
    """A curve for each direction that has readings; `words` describe them.

    `x_ticks` are in seconds, `y_ticks` in units of `scale` bit/s, which `unit` names.
    """

    lines: list[list[Reading]]
    seconds: float
    x_ticks: list[float]
    y_ticks: list[float]
    scale: float
    unit: str
    words: str

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


def draw(directions: list[Direction]) -> Curve | None:
    """The curve of a test; None when it has no readings."""
    lines = [way.readings for way in directions if way.readings]
    if not lines:
        return None
    seconds = max(_LEAST_SECONDS, *(readings[-1].end for readings in lines))
    fastest = max(1.0, *(reading.rate for readings in lines for reading in readings))
    prefix, scale = quantities.prefix(fastest)
    return Curve(
        lines=lines,
        seconds=seconds,
        x_ticks=_ticks(seconds, most=6, beyond=False),
        y_ticks=_ticks(fastest / scale, most=5, beyond=True),
        scale=scale,
        unit=f"{prefix}bit/s",
        words="; ".join(_words(readings) for readings in lines),
    )


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
