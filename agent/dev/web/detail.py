"""One test in full, as the page shows it."""

from dataclasses import dataclass
from datetime import datetime

from agent import quantities
from agent.dev.store.records import ManagedTask, Test
from agent.dev.store.store import Store
from agent.dev.web import curve
from agent.dev.web.curve import Curve
from agent.dev.web.figures import Direction, read_directions
from agent.dev.web.overview import PHASES, TestRow, listed_test, under_way
from agent.error_classes import ErrorClass
from agent.iperf3.summary import Sums
from agent.protocol import read_report


@dataclass(frozen=True)
class Failure:
    """A task that failed: whose it was, the message, and what to do."""

    task: str
    message: str
    advice: str


@dataclass(frozen=True)
class SumRow:
    """What one side counted, each figure in words; empty where that side does not know it."""

    side: str
    rate: str
    data: str
    retransmits: str
    jitter: str
    lost: str


@dataclass(frozen=True)
class Shown:
    """The test that is shown in full. `ways` has a line of the curve's legend for each."""

    row: TestRow
    under_way: bool
    failures: list[Failure]
    warnings: list[str]
    sums: list[SumRow]
    ways: list[str]
    directions: list[Direction]
    curve: Curve | None
    iperf3_version: str


def shown(store: Store, test: Test, now: datetime) -> Shown:
    """One test in full."""
    row = listed_test(store, test, now)
    result = store.tasks.get(test.client_task_id).result
    directions, report = read_directions(result), read_report(result)
    return Shown(
        row=row,
        under_way=under_way(store, test),
        failures=_failures(store, row),
        warnings=report.warnings,
        sums=[line for way in directions for line in _sum_rows(row, way)],
        ways=[" to ".join(_ends(row, way)) for way in directions],
        directions=directions,
        curve=curve.draw(directions),
        iperf3_version=report.iperf3_version,
    )


def _failures(store: Store, row: TestRow) -> list[Failure]:
    """What went wrong on either side, the server's first: it often explains the client's."""
    sides = (
        (f"Server on {row.server}", store.tasks.get(row.test.server_task_id)),
        (f"Client on {row.client}", store.tasks.get(row.test.client_task_id)),
    )
    return [
        Failure(side, task.error or PHASES.get(task.status, "no reason given"), _advice(task))
        for side, task in sides
        if task.status in ("failed", "timed_out")
    ]


def _advice(task: ManagedTask) -> str:
    if task.status == "timed_out":
        return ErrorClass.TIMED_OUT.advice
    return (read_report(task.result).error_class or ErrorClass.OTHER).advice


def _ends(row: TestRow, way: Direction) -> tuple[str, str]:
    return (row.client, row.server) if way.from_client else (row.server, row.client)


def _sum_rows(row: TestRow, way: Direction) -> list[SumRow]:
    sender, receiver = _ends(row, way)
    if way.sent == Sums():
        return []
    if way.received is None:
        return [_sum_row(f"{sender} to {receiver}", way.sent, lossy=True)]
    return [
        _sum_row(f"sent by {sender}", way.sent, lossy=False),
        _sum_row(f"received by {receiver}", way.received, lossy=True),
    ]


def _sum_row(side: str, counted: Sums, lossy: bool) -> SumRow:
    """Jitter and loss are the receiver's to know: of a sender iperf3 says 0."""
    rate, data, jitter, lost = (counted.bits_per_second, counted.bytes, "", "")
    if lossy and counted.jitter_ms is not None:
        jitter = f"{counted.jitter_ms:.3f} ms"
    if lossy and counted.lost_packets is not None:
        lost = f"{counted.lost_packets:.0f} of {counted.packets or 0:.0f}"
        lost += f" ({counted.lost_percent or 0:.3g} %)"
    return SumRow(
        side,
        "" if rate is None else quantities.rate(rate),
        "" if data is None else quantities.quantity(data, "B"),
        "" if counted.retransmits is None else f"{counted.retransmits:.0f}",
        jitter,
        lost,
    )
