"""What the tasks of an agent share, and the outcomes that they have in common."""

import time
from contextlib import suppress
from dataclasses import dataclass, field

from agent import __version__
from agent.config.settings import Config
from agent.errors import StateUnusable, TaskError
from agent.host import default_congestion, kernel
from agent.metrics import Metrics
from agent.outbox.queue import Outbox
from agent.process.child import ChildProcess
from agent.protocol import Outcome, Report
from agent.registry import Entry, TaskRegistry
from agent.state.directory import StateDirectory
from agent.state.journal import ChildRecord, Journal
from agent.tasks.installed import InstalledIperf3


@dataclass
class TaskContext:
    """What every task works with. Each child writes a few files into `state.children`."""

    config: Config
    registry: TaskRegistry
    outbox: Outbox
    journal: Journal
    state: StateDirectory
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.iperf3 = InstalledIperf3(self.config.iperf3_path)

    def note_child(self, entry: Entry, child: ChildProcess, report: Report) -> None:
        """Enter a child that was just started into the registry and the journal.

        A write failure does not stop the test: if the agent dies, the child dies too.
        """
        if not entry.started_at:
            self.metrics.wait_seconds.observe(time.monotonic() - entry.entered)
        entry.note_start(child.pid)
        with suppress(StateUnusable):
            self.journal.record_child(entry.claimed, ChildRecord(child.identity, report))

    def report(self) -> Report:
        """A report with what is known before anything has run."""
        return Report(
            version=__version__,
            iperf3_version=self.iperf3.version,
            kernel=kernel(),
            congestion=default_congestion(),
        )


def failed(report: Report, error: TaskError, exit_code: int = 1) -> Outcome:
    """The outcome of a task that could not run or went wrong without a document."""
    report.error_class = error.error_class
    return Outcome("failed", report, exit_code=exit_code, stderr=str(error))
