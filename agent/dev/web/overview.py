"""What the page says of tests, and its downloads of them for spreadsheets: CSV (RFC 4180)."""

import csv
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from io import StringIO

from msgspec.structs import astuple

from agent import quantities
from agent.dev.store.records import ManagedAgent, ManagedTask, Test, utc_now
from agent.dev.store.store import Store
from agent.dev.store.tasks import seconds_of
from agent.dev.web.figures import Curve, Direction, read_rates, read_result
from agent.diagnosis.halves import together
from agent.errors import ErrorClass
from agent.iperf3.figures import figures_in
from agent.iperf3.summary import Sums, read_intervals
from agent.protocol import Flow, Report, read_report
from agent.turns import await_turn

# What a test may measure, and what that adds to the client's payload.
WAYS: dict[str, dict[str, bool]] = {
    "client to server": {},
    "server to client": {"reverse": True},
    "both ways": {"bidir": True},
}
PHASES = {"queued": "not started", "accepted": "about to begin", "timed_out": "timed out"}
# The columns of a CSV file, with their units.
_TEST = "test begun_utc client server port protocol direction streams duration_s state sender"
_FIGURES = [name for name in Flow.__struct_fields__ if name != "rates"]
_RATES = {"sent": "sent_bit_per_s", "received": "received_bit_per_s"}
_UNITS = {**_RATES, "start": "start_s", "end": "end_s", "seconds": "length_s"}
# Before what a spreadsheet would take for a formula.
_FORMULA = re.compile(r"\A(?=\s*[=+\-@＝＋－＠]|[\t\r\n])")


class TestRow:
    """A test in the list. `phase` says its `status` in words; `lost` is for UDP.

    `elapsed`, in seconds, and `rate_now` are of a running test; the rate is empty when unknown.
    `way` is what was asked for; of what was measured, `directions` have no readings yet.
    """

    def __init__(self, store: Store, test: Test, now: datetime) -> None:
        task, server_task = map(store.tasks.get, (test.client_task_id, test.server_task_id))
        client, server = map(store.agents.get, (test.client_agent_id, test.server_agent_id))
        self.test, self.task, self.server_task = test, task, server_task
        self.exercise = store.exercises.get(test.exercise_id)
        self.client, self.server = client.name, server.name
        self.way = way_of(task)
        self.protocol = "UDP" if test.udp else "TCP"
        streams = "1 stream" if test.parallel == 1 else f"{test.parallel} streams"
        how = f"{self.protocol}, {self.way}, {streams}, {test.time_seconds} s"
        self.kind = f"{how}, port {test.server_port}"
        self.begun = task.started_at or task.created_at
        self.status, self.phase = self._state(client, server)
        # What is omitted at its start is no part of a test.
        self.counted_from = self.begun + timedelta(seconds=seconds_of(task.payload.get("omit"), 0))
        elapsed = int((now - self.counted_from).total_seconds())
        in_time = max(0, min(test.time_seconds, elapsed))
        self.elapsed = in_time if task.status == "running" else None
        self.rates = store.agents.rates(client.id, task.id)
        is_fresh = self.rates and client.status == "online"
        self.rate_now = quantities.rate(self.rates[-1][1]) if is_fresh else ""
        figures = figures_in(task.result)
        ends = [(self.client, self.server), (self.server, self.client)]
        if task.payload.get("reverse"):
            ends.reverse()
        self.directions = [Direction(*each, flow) for each, flow in zip(ends, figures.flows)]
        self.rate, self.lost = figures.of_each_way(Flow.headline), figures.of_each_way(_lost)

    @cached_property
    def reports(self) -> dict[int, Report]:
        """What each agent says of the test, by the id of its task; the client's comes first."""
        return {each.id: read_report(each.result) for each in (self.task, self.server_task)}

    def _state(self, client: ManagedAgent, server: ManagedAgent) -> tuple[str, str]:
        """The test's status, which is the client task's in most cases, and its words."""
        task, server_task = self.task, self.server_task
        waits = task.status == "queued" and server_task.status != "queued"
        if waits or task.status == "pending":
            host = server if waits else client
            absent = "" if host.status == "online" else f", which is {host.status}"
            return task.status, f"waiting for {'the server on ' * waits}{host.name}{absent}"
        if self._was_stopped(task):
            return "stopped", "stopped"
        if server_task.status == "failed" and task.status in ("succeeded", "canceled"):
            # Another server answered at that address and port, or the client was spared.
            reached = "client succeeded, " if task.status == "succeeded" else ""
            return "failed", f"{reached}server failed"
        return task.status, PHASES.get(task.status, task.status)

    def _was_stopped(self, task: ManagedTask) -> bool:
        """Whether it failed because somebody stopped the test, and for no other reason.

        Where no class tells, from an agent of another make, its order does. A client may lose a
        server that is stopped a little earlier.
        """
        ended = self.exercise.ended_at
        if task.status != "failed" or not (task.finished_at and ended and ended < task.finished_at):
            return False
        error_class = self.reports[task.id].error_class
        if error_class is ErrorClass.PEER_LOST:
            return bool(self.reports[self.server_task.id].ended)
        return error_class in (ErrorClass.KILLED, None)


class TestDetail(TestRow):
    """The test that is shown in full.

    `failures` has each side that failed, its message, and what to do. `curve` is None without
    readings. `diagnoses` are what limited each direction, by both halves as far as they are there.
    """

    def __init__(self, store: Store, test: Test, now: datetime) -> None:
        super().__init__(store, test, now)
        lines = read_result(self.task.result)
        if self.elapsed is not None:
            lines = [read_rates(self.rates, self.counted_from)]
        for way, readings in zip(self.directions, lines):
            way.readings = readings
        drawn = [way.readings for way in self.directions if way.readings]
        self.curve = Curve(drawn) if drawn else None
        self.report, served = self.reports.values()
        ways = [together(self.report, served, back=back) for back in (False, True)]
        self.diagnoses = [found for found in ways if found]
        # The server's failure comes first: it often explains the client's.
        server, client = f"Server on {self.server}", f"Client on {self.client}"
        self.failures = []
        for side, task in ((server, self.server_task), (client, self.task)):
            is_late, said = task.status == "timed_out", self.reports[task.id].error_class
            if is_late or (task.status == "failed" and not self._was_stopped(task)):
                words = task.error or PHASES.get(task.status, "no reason given")
                error_class = ErrorClass.TIMED_OUT if is_late else said or ErrorClass.OTHER
                self.failures.append((side, words, error_class.advice))
        # One that has listened is a success, and may have left its client alone all the same.
        if self.failures and served.ended and not served.stopped:
            advice = (served.error_class or ErrorClass.OTHER).advice
            self.failures.insert(0, (server, served.ended, advice))


def way_of(client: ManagedTask) -> str:
    """Which of the WAYS a client's task measures."""
    return [way for way, adds in WAYS.items() if adds.items() <= client.payload.items()][-1]


def _lost(flow: Flow) -> str:
    return f"{flow.lost_percent:.3g} % lost" if flow.lost_percent else ""


def tests_csv(store: Store) -> Iterator[str]:
    """All tests, oldest first; those of both directions have a line for each sender."""
    yield _line(*_TEST.split(), *(_UNITS.get(name, name) for name in _FIGURES), "error")
    for test in store.exercises.tests():
        row = TestRow(store, test, utc_now())
        begun, ends = f"{row.begun:%Y-%m-%dT%H:%M:%SZ}", (row.client, row.server)
        how = (test.server_port, row.protocol, row.way, test.parallel, test.time_seconds)
        for way in row.directions:
            told = (row.phase, way.sender, *(getattr(way.flow, name) for name in _FIGURES))
            yield _line(test.id, begun, *ends, *how, *told, row.task.error)


def intervals_csv(store: Store, test: Test) -> Iterator[str]:
    """The intervals of a test, as the client's iperf3 wrote them, with a line for each sender."""
    yield _line("sender", *(_UNITS.get(name, name) for name in Sums.__struct_fields__))
    row = TestRow(store, test, utc_now())
    for interval in read_intervals(row.task.result):
        for way, sums in zip(row.directions, (interval.sum, interval.sum_bidir_reverse)):
            if sums:
                yield _line(way.sender, *astuple(sums))


def _line(*cells: object) -> str:
    # Thousands of lines leave time for heartbeats.
    await_turn()
    line = StringIO()
    safe = (_FORMULA.sub("'", cell) if isinstance(cell, str) else cell for cell in cells)
    csv.writer(line).writerow(safe)
    return line.getvalue()
