"""What every task greenlet works with, and the outcomes it makes."""

import time
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from agent import __version__
from agent.config.settings import Config
from agent.errors import StateUnusable, TaskError
from agent.host import default_congestion, kernel
from agent.iperf3.features import Features
from agent.metrics import Metrics
from agent.outbox.queue import Outbox
from agent.process.child import ChildProcess
from agent.protocol import Outcome, Report
from agent.registry import Entry, TaskRegistry
from agent.state.directory import StateDirectory
from agent.state.journal import ChildRecord, Journal
from agent.tasks.installed import file_mark, iperf3_file, probe_iperf3

log = structlog.get_logger()


@dataclass
class TaskContext:
    """The rooms that a task needs, and the iperf3 that was found.

    The children write into `state.children`, a few files for each task.
    """

    config: Config
    registry: TaskRegistry
    outbox: Outbox
    journal: Journal
    state: StateDirectory
    metrics: Metrics = field(default_factory=Metrics)
    found: Features | None = None
    _seen: tuple[int, ...] = ()

    def iperf3(self) -> Features:
        """The iperf3 to run, asked again while it is missing and when its file is another one.

        Raises TaskError.
        """
        if self.found is None or file_mark(self.found.path) != self._seen:
            found = self.look_for_iperf3()
            log.info("iperf3 found", version=found.version, options=len(found.options))
        assert self.found
        return self.found

    def look_for_iperf3(self) -> Features:
        """Ask the iperf3 that is there now what it is; raises TaskError."""
        path = iperf3_file(self.config.iperf3_path)
        self.found, self._seen = None, file_mark(path)
        self.found = probe_iperf3(path)
        return self.found

    def note_child(self, entry: Entry, child: ChildProcess, report: Report) -> None:
        """Enter a child that was just started into the registry, and into the journal.

        A disk that does not take it ends no test: with the agent the child would end anyway.
        """
        if not entry.started_at:
            self.metrics.wait_seconds.observe(time.monotonic() - entry.entered)
        entry.runs(child.pid)
        with suppress(StateUnusable):
            self.journal.record_child(entry.claimed, ChildRecord(child.identity, report))

    def report(self) -> Report:
        """A report with what is known before anything has run."""
        return Report(
            version=__version__,
            iperf3_version=self.found.version if self.found else "",
            kernel=kernel(),
            congestion=default_congestion(),
        )


def failed(report: Report, error: TaskError, exit_code: int = 1) -> Outcome:
    """The outcome of a task that could not run or went wrong without a document."""
    report.error_class = error.error_class
    return Outcome("failed", report, exit_code=exit_code, stderr=str(error))
