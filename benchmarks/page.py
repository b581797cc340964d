"""The table in docs/performance.md: the figures that have a target."""

import textwrap
from collections.abc import Iterator

from benchmarks.figures import Figure, written
from benchmarks.results import ROOT, Results

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- `make bench` writes what follows. -->\n"
END = "<!-- Up to here. -->\n"
WIDTH = 100


def write(results: Results) -> None:
    """Put the table into the page."""
    PAGE.write_text(filled(PAGE.read_text(), results))


def filled(page: str, results: Results) -> str:
    """The page with the table of these results."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return before + BEGIN + "\n".join(["", *table(results), "", ""]) + END + after


def table(results: Results) -> Iterator[str]:
    """The lines of the table in Markdown, below when and where it was measured."""
    figures = [figure for run in results.values() for figure in run.figures if figure.target]
    for words in dict.fromkeys(f"{run.taken_at}: {run.machine}" for run in results.values()):
        yield from textwrap.wrap(f"Measured on {words}.", WIDTH)
    reached = sum(not figure.missed for figure in figures)
    yield f"{reached} of {len(figures)} targets are reached."
    yield ""
    yield "| what | target | measured | ÷ floor | reached |"
    yield "| --- | --- | --- | --- | --- |"
    yield from map(row, figures)


def row(figure: Figure) -> str:
    """One line of the table."""
    ratio = f"{figure.ratio.value:.2f}" if figure.ratio else ""
    reached = "**no**" if figure.missed else "yes"
    cells = [figure.what, figure.target, written(figure.measured.value), ratio, reached]
    return f"| {' | '.join(cells)} |"
