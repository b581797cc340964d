"""One test in full, as the page shows it."""

from dataclasses import dataclass
from datetime import datetime

from agent.dev.store.records import Test
from agent.dev.store.store import Store
from agent.dev.web.figures import Curve, Direction, draw, read_directions
from agent.dev.web.overview import PHASES, TestRow, test_row, under_way
from agent.error_classes import ErrorClass
from agent.protocol import Flow, Report, read_report


@dataclass(frozen=True)
class TestDetail:
    """The test that is shown in full.

    `failures` has each side that failed, its message, and what to do. `sums` has each side,
    whether it sent, and the figures. `directions` has the words of each and its figures.
    """

    row: TestRow
    under_way: bool
    failures: list[tuple[str, str, str]]
    sums: list[tuple[str, bool, Flow]]
    directions: list[tuple[str, Direction]]
    curve: Curve | None
    report: Report


def test_detail(store: Store, test: Test, now: datetime) -> TestDetail:
    """One test in full."""
    row = test_row(store, test, now)
    result = store.tasks.get(test.client_task_id).result
    directions = read_directions(result)
    return TestDetail(
        row=row,
        under_way=under_way(store, test),
        failures=_failures(store, row),
        sums=[side for way in directions for side in _sums(row, way)],
        directions=[(" to ".join(_ends(row, way)), way) for way in directions],
        curve=draw(directions),
        report=read_report(result),
    )


def _failures(store: Store, row: TestRow) -> list[tuple[str, str, str]]:
    """What failed on either side, the server's first: it often explains the client's."""
    failures = []
    for side, task_id in (
        (f"Server on {row.server}", row.test.server_task_id),
        (f"Client on {row.client}", row.test.client_task_id),
    ):
        task = store.tasks.get(task_id)
        error_class = read_report(task.result).error_class or ErrorClass.OTHER
        if task.status == "timed_out":
            error_class = ErrorClass.TIMED_OUT
        if task.status in ("failed", "timed_out"):
            message = task.error or PHASES.get(task.status, "no reason given")
            failures.append((side, message, error_class.advice))
    return failures


def _ends(row: TestRow, way: Direction) -> tuple[str, str]:
    return (row.client, row.server) if way.from_client else (row.server, row.client)


def _sums(row: TestRow, way: Direction) -> list[tuple[str, bool, Flow]]:
    sender, receiver = _ends(row, way)
    if not way.flow.is_known:
        return []
    return [(f"sent by {sender}", True, way.flow), (f"received by {receiver}", False, way.flow)]
