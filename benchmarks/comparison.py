"""What became better or worse than the committed figures.

A figure that has a floor is compared as a ratio to the floor of its own run, so that a slower host,
or a slower hour of it, is no regression.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from benchmarks.figures import Figure, Range, written
from benchmarks.results import Results

# Nobody cares for less, as a share of the committed value. It also covers the noise of what is
# measured once.
NOTICEABLE = 0.01


class Verdict(StrEnum):
    """What a comparison has found."""

    BETTER = "better"
    SAME = "same"
    WORSE = "worse"
    NEW = "new"
    GONE = "not measured"
    NO_FLOOR = "no common floor"


class Row(NamedTuple):
    """One line of the comparison: a figure now and as it is committed."""

    what: str
    now: Figure | None
    committed: Figure | None
    verdict: Verdict


def judge(now: Figure | None, committed: Figure | None) -> Verdict:
    """Compare a figure with the committed one; at least one of them is there."""
    if now is None:
        return Verdict.GONE
    if committed is None:
        return Verdict.NEW
    if now.floors != committed.floors or (now.floors and not (now.floor and committed.floor)):
        return Verdict.NO_FLOOR
    more = apart(comparable(now), comparable(committed))
    if not more:
        return Verdict.SAME
    return Verdict.BETTER if (more > 0) == (now.least is not None) else Verdict.WORSE


def comparable(figure: Figure) -> Range:
    """The ratio to its floor, or the figure itself when it has none."""
    return figure.ratio or figure.measured


def apart(now: Range, before: Range) -> int:
    """1 when all of `now` is noticeably above all of `before`, -1 when it is below, else 0."""
    little = NOTICEABLE * abs(before.value)
    if now.low > before.high + little:
        return 1
    return -1 if now.high < before.low - little else 0


def compare(now: Results, committed: Results, names: list[str]) -> list[Row]:
    """The rows of these scripts, in their order."""
    rows = []
    for name in names:
        new = compared(now, name)
        old = compared(committed, name)
        for what in new | old:
            found, before = new.get(what), old.get(what)
            rows.append(Row(what, found, before, judge(found, before)))
    return rows


def compared(results: Results, name: str) -> dict[str, Figure]:
    """The figures of one script that are to be compared, by what they are."""
    figures = results[name].figures if name in results else []
    return {figure.what: figure for figure in figures if figure.compared}


def report(rows: list[Row]) -> Iterator[str]:
    """The rows as a table for a terminal, and below it once more what became worse."""
    table = [("figure", "now", "committed", "verdict")]
    table += [(what, shown(now), shown(before), verdict) for what, now, before, verdict in rows]
    widths = [max(map(len, column)) for column in zip(*table)]
    for cells in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()
    yield ""
    worse = [row.what for row in rows if row.verdict == Verdict.WORSE]
    yield f"worse by more than the spread: {'; '.join(worse) or 'nothing'}"


def shown(figure: Figure | None) -> str:
    """A figure as it is compared, with its spread."""
    if figure is None:
        return ""
    of = comparable(figure)
    low, value, high = (written(number, 3) for number in (of.low, of.value, of.high))
    spread = f" ({low} to {high})" if low != high else ""
    return f"{value} {'x floor' if figure.ratio else figure.unit}".strip() + spread
