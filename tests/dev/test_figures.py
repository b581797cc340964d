"""What the page reads from a result and draws: real documents of iperf3, and made-up ones."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.dev.web.figures import (
    BOTTOM,
    LEFT,
    MOST_READINGS,
    RIGHT,
    TOP,
    Curve,
    Reading,
    mean,
    read_result,
)
from agent.iperf3.documents import find_documents
from agent.iperf3.figures import figures_in
from agent.protocol import Report, read_report

RECORDED = Path(__file__).parent.parent / "iperf3" / "data"
CLIENTS = [
    path
    for path in sorted(RECORDED.glob("*/*.stdout"))
    if path.stem.startswith(("tcp", "udp")) and not path.stem.endswith("port-in-use")
]


def readings_of(result: Any) -> list[list[Reading]]:
    """The readings of each direction of a result that has some."""
    return [each for each in read_result(msgspec.Raw(msgspec.json.encode(result))) if each]


def interval(start: Any, end: Any, rate: Any, **more: Any) -> dict[str, Any]:
    """An interval as iperf3 reports it."""
    return {"sum": {"start": start, "end": end, "bits_per_second": rate, **more}}


@pytest.mark.parametrize("path", CLIENTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_documents_of_every_iperf3_are_read(path: Path) -> None:
    start, end = find_documents(path.read_bytes())[-1]
    result = msgspec.Raw(path.read_bytes()[start:end])
    figures, both = figures_in(result), path.stem == "tcp-bidir"
    assert len(figures.flows) == (2 if both else 1)
    assert (figures.direction == "reverse") == path.stem.endswith("reverse")
    for flow in figures.flows:
        assert flow.sent and flow.sent_bytes and flow.received
        assert (flow.lost_packets is not None) == path.stem.startswith("udp")
        assert (flow.retransmits is not None) == path.stem.startswith("tcp")
    assert [len(readings) for readings in read_result(result)] == [1, 1 if both else 0]


def test_an_omitted_or_incomplete_interval_is_no_reading() -> None:
    intervals = [
        interval(0, 1, 9e9, omitted=True),
        interval(0, 1, 1e9),
        interval(1, 2, None),
        interval(None, 3, 2e9),
        interval(3, 3, 2e9),
        interval(-1, 4, 2e9),
        interval(4, 1e300, 2e9),
        interval(4, 5, 1e300),
        {},
        interval(5, 6, 3e9),
    ]
    (readings,) = readings_of({"intervals": intervals})
    assert readings == [Reading(0, 1, 1e9), Reading(5, 6, 3e9)]


@pytest.mark.parametrize("result", [None, [], "x", {"intervals": 1}, {"end": {"sum": []}}])
def test_a_result_without_a_document_has_no_figures(result: Any) -> None:
    assert readings_of(result) == []
    assert read_report(msgspec.json.encode(result)) == Report()


def test_many_readings_become_few_with_the_same_mean() -> None:
    intervals = [interval(at, at + 1, at * 1e6) for at in range(1009)]
    (readings,) = readings_of({"intervals": intervals})
    assert MOST_READINGS / 2 < len(readings) <= MOST_READINGS
    assert (readings[0].start, readings[-1].end) == (0, 1009)
    assert mean(readings) == pytest.approx(504e6)


def test_a_curve_fills_its_frame_from_edge_to_edge() -> None:
    readings = [Reading(0, 1, 4e9), Reading(1, 2, 0), Reading(2, 2.5, 5e9)]
    curve = Curve([readings])
    path = "M62.0 78.0 L172.0 78.0 L392.0 214.0 L557.0 44.0 L612.0 44.0"
    assert curve.path(readings) == path
    assert [curve.y(reading.rate) for reading in readings] == [78.0, BOTTOM, TOP]
    assert (curve.unit, curve.y_ticks) == ("Gbit/s", [0, 1, 2, 3, 4, 5])
    assert [curve.y(tick * curve.scale) for tick in (0, 5)] == [BOTTOM, TOP]
    assert curve.x_ticks == [0, 0.5, 1, 1.5, 2, 2.5]
    assert [curve.x(tick) for tick in (0, 2.5)] == [LEFT, RIGHT]
    assert "over 2.5 s: at least 0 bit/s, on average 2.60 Gbit/s, at most 5.00 Gbit/s" in (
        curve.words
    )


@pytest.mark.parametrize(
    "reading", [Reading(0, 1, 0), Reading(0, 1e-300, 1e-300), Reading(0, 1e6, 1e15)]
)
def test_an_extreme_reading_can_be_drawn(reading: Reading) -> None:
    curve = Curve([[reading]])
    assert LEFT <= curve.x(reading.middle) <= RIGHT
    assert TOP <= curve.y(reading.rate) <= BOTTOM
    assert 2 <= len(curve.x_ticks) <= 8 and 2 <= len(curve.y_ticks) <= 8
