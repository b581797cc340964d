"""The figures of a test in words."""

from collections.abc import Callable

from agent.protocol import Figures, Flow
from agent.quantities import rate


def throughput(figures: Figures) -> str:
    """The headline of a test: the rate at each receiver, in words. Empty when nobody knows it."""
    return of_each_way(figures, _headline)


def of_each_way(figures: Figures, words: Callable[[Flow], str]) -> str:
    """What there is to say of each flow; what is said of the way back begins with that."""
    said = zip(("", "back "), map(words, figures.flows))
    return ", ".join(way + text for way, text in said if text)


def _headline(flow: Flow) -> str:
    if flow.received is not None:
        return rate(flow.received)
    return "" if flow.sent is None else f"{rate(flow.sent)} sent"
