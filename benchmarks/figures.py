"""What a benchmark has measured: as a line for whoever waits, as JSON, and as a table."""

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

RESULTS = Path(__file__).parent / "results.json"
# Where `python -m benchmarks` wants the figures of one script.
FIGURES_FILE = "BENCHMARK_FIGURES"


class Figure(Struct):
    """One number. `most` and `least` are its targets; without one it is for scale.

    `spread` tells in words how far the single measurements lie apart, or what else was seen.
    """

    what: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None
    spread: str = ""
    command: str = ""

    @property
    def target(self) -> str:
        """The target in words; empty without one."""
        if self.most is not None:
            return f"at most {self.most:g} {self.unit}".strip()
        return f"at least {self.least:g} {self.unit}".strip() if self.least is not None else ""

    @property
    def missed(self) -> bool:
        """Whether there is a target that is not reached."""
        high = self.most is not None and self.value > self.most
        return high or (self.least is not None and self.value < self.least)

    @property
    def measured(self) -> str:
        """The number with its unit."""
        return f"{self.value:.4g} {self.unit}".strip()


class Results(Struct):
    """All figures of one run, and the machine that they are of."""

    machine: str
    taken_at: str
    figures: list[Figure]


def show(figures: Iterable[Figure]) -> None:
    """Print each figure as soon as it is there, and leave them all for `python -m benchmarks`."""
    module = sys.modules["__main__"].__spec__
    command = f"python -m {module.name}" if module else ""
    found = []
    for figure in figures:
        figure.command = command
        said = f"{figure.what}: {figure.measured}"
        reached = "no" if figure.missed else "yes"
        target = f" ({figure.target}: {reached})" if figure.target else ""
        spread = f"; {figure.spread}" if figure.spread else ""
        print(f"{said}{target}{spread}", flush=True)
        found.append(figure)
    if FIGURES_FILE in os.environ:
        Path(os.environ[FIGURES_FILE]).write_bytes(msgspec.json.encode(found))


def median(what: str, values: list[float], unit: str, most: float | None = None) -> Figure:
    """The median of some measurements, with their spread."""
    low, high = percentile(values, 5), percentile(values, 95)
    spread = f"p5 {low:.4g}, p95 {high:.4g}, worst {max(values):.4g}; {len(values)} times"
    return Figure(what, statistics.median(values), unit, most, spread=spread)


def percentile(values: list[float], share: int) -> float:
    """The value that `share` per cent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def progress(text: str) -> None:
    """Say what goes on, on a line that the next one replaces; nothing where nobody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def machine() -> str:
    """What the figures depend on: processor, cores, kernel, Python, iperf3."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    iperf3 = subprocess.run(["iperf3", "--version"], capture_output=True, text=True, check=True)
    version = iperf3.stdout.split(" (")[0]
    words = f"{len(os.sched_getaffinity(0))} cores of {name}, {platform.system()}"
    return f"{words} {platform.release()}, Python {platform.python_version()}, {version}"


def now() -> str:
    """The date of today in UTC."""
    return datetime.now(UTC).date().isoformat()


def table(results: Results) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield f"Measured on {results.taken_at}: {results.machine}."
    yield ""
    yield "| what | target | measured | reached | spread | command |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for each in results.figures:
        reached = "**no**" if each.missed else "yes" if each.target else ""
        cells = [each.what, each.target, each.measured, reached, each.spread]
        yield f"| {' | '.join(cells)} | `{each.command}` |"
