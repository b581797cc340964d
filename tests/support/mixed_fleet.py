"""Recorded UDP tests between two versions of iperf3, over a link of 50 Mbit/s there, 30 back.

Each test of 200 Mbit/s has the documents of both sides: `CLIENT-SERVER-CASE.client` and
`.server`. `calm` is one of 10 Mbit/s. Three clients of 5 Mbit/s had no such link: `lost` over a
path that takes no datagram there, `dead` over one that takes none back, and `dying` over one that
takes none back after a while.
"""

import pathlib

from agent.iperf3.figures import figures_of
from agent.iperf3.summary import Summary, read_intervals, read_summary
from agent.iperf3.verdict import last_served
from agent.protocol import Figures

DATA = pathlib.Path(__file__).parent.parent / "iperf3" / "mixed"
PAIRS = sorted({tuple(path.name.split("-")[:2]) for path in DATA.glob("*.client")})
DOWN, UP = 48.8e6, 29.2e6


def document(pair: tuple[str, ...], case: str, side: str) -> bytes:
    """The document of one side."""
    data = (DATA / "-".join((*pair, f"{case}.{side}"))).read_bytes()
    span = last_served(data).span
    assert span is not None
    return data[slice(*span)]


def summary(pair: tuple[str, ...], case: str, side: str) -> Summary:
    """Its summary."""
    found = read_summary(document(pair, case, side))
    assert found is not None
    return found


def figures(pair: tuple[str, ...], case: str, side: str) -> Figures:
    """Its figures."""
    return figures_of(summary(pair, case, side), read_intervals(document(pair, case, side)))
