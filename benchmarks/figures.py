"""What a benchmark has measured: each figure with its spread, its target and its floor."""

import os
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec
from msgspec import Struct

# Where `python -m benchmarks` wants the figures of one script.
FIGURES_FILE = "BENCHMARK_FIGURES"
# The spread is taken from so many parts of a run: when nothing has changed, the parts of two runs
# lie wholly apart once in 252 times.
PARTS = 5


class Floor(StrEnum):
    """Figures of benchmarks/floors.py that others are compared with."""

    RESIDENT = "resident, gevent and requests"
    START = "start to end, gevent and requests"
    CHILD = "gevent.subprocess to execve, when idle before"
    CALLS = "requests alone, 1.2 calls a second"
    SERVERS = "500 servers by the smallest agent"
    REQUEST = "one request on a kept-alive connection"
    FSYNC = "one fsync of a small new file"


class Range(Struct, frozen=True):
    """A number, and the lowest and the highest that a part of the run gave for it."""

    value: float
    low: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.value + other.value, self.low + other.low, self.high + other.high)

    def __truediv__(self, other: "Range") -> "Range":
        return Range(self.value / other.value, self.low / other.high, self.high / other.low)

    def times(self, factor: float) -> "Range":
        """So many times the number and its spread; the factor is above 0."""
        return Range(self.value * factor, self.low * factor, self.high * factor)


class Figure(Struct, omit_defaults=True):
    """One number. `most` and `least` are its targets; with `least`, more is better.

    `floors` names what its parts cost alone, and `floor` is their sum, measured in the same run.
    A figure that follows from others is not `compared`.
    """

    what: str
    measured: Range
    unit: str
    most: float | None = None
    least: float | None = None
    floors: tuple[str, ...] = ()
    floor: Range | None = None
    note: str = ""
    compared: bool = True

    @property
    def target(self) -> str:
        """The target in words; empty without one."""
        if self.most is not None:
            return f"≤ {self.most:g} {self.unit}".strip()
        return f"≥ {self.least:g} {self.unit}".strip() if self.least is not None else ""

    @property
    def missed(self) -> bool:
        """Whether there is a target that is not reached."""
        value = self.measured.value
        high = self.most is not None and value > self.most
        return high or (self.least is not None and value < self.least)

    @property
    def ratio(self) -> Range | None:
        """How many times its floor it is; None without a floor."""
        return self.measured / self.floor if self.floor else None

    def __str__(self) -> str:
        low, value, high = map(
            written, (self.measured.low, self.measured.value, self.measured.high)
        )
        said = f"{self.what}: {value} {self.unit}".strip()
        reached = f"{self.target}: {'no' if self.missed else 'yes'}" if self.target else ""
        apart = f"{low} to {high}" if low != high else ""
        return "; ".join(filter(None, (said, reached, apart, self.note)))


def written(value: float, digits: int = 4) -> str:
    """A number with so many digits that count, and all those before the point."""
    short = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in short else short


def show(figures: Iterable[Figure]) -> None:
    """Print each figure as soon as it is there, and leave them all for `python -m benchmarks`."""
    found = []
    for figure in figures:
        print(figure, flush=True)
        found.append(figure)
    if FIGURES_FILE in os.environ:
        Path(os.environ[FIGURES_FILE]).write_bytes(msgspec.json.encode(found))


def once(value: float) -> Range:
    """What was measured a single time, so that nothing is known about its spread."""
    return Range(value, value, value)


def spread(
    values: Sequence[float], pick: Callable[[Sequence[float]], float] = statistics.median
) -> Range:
    """What `pick` makes of all values, with the lowest and highest of what it makes of each part.

    The values are in the order of their measurement, so that a drift during the run counts.
    """
    count = len(values)
    cuts = [count * part // PARTS for part in range(PARTS + 1)]
    parts = [values[begin:end] for begin, end in zip(cuts, cuts[1:]) if begin < end]
    picked = [pick(part) for part in parts]
    return Range(pick(values), min(picked), max(picked))


def median(
    what: str,
    values: Sequence[float],
    unit: str,
    most: float | None = None,
    floors: tuple[str, ...] = (),
) -> Figure:
    """The median of some measurements; its note tells how far the single ones lie apart."""
    low, high = percentile(values, 5), percentile(values, 95)
    note = f"p5 {low:.4g}, p95 {high:.4g}, worst {max(values):.4g}; {len(values)} times"
    return Figure(what, spread(values), unit, most, floors=floors, note=note)


def percentile(values: Sequence[float], share: int) -> float:
    """The value that `share` per cent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def p99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return percentile(values, 99)


def progress(text: str) -> None:
    """Say what goes on, on a line that the next one replaces; nothing where nobody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
