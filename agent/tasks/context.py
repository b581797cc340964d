"""What the tasks of an agent share."""

import time
from dataclasses import dataclass, field

import gevent

from agent import __version__
from agent.config.settings import Config
from agent.host import default_congestion, kernel
from agent.metrics import Metrics
from agent.outbox.queue import Outbox
from agent.process.child import ChildProcess, Ending
from agent.protocol import Report
from agent.registry import Entry, TaskRegistry
from agent.state.journal import ChildRecord
from agent.state.ledger import Ledger
from agent.tasks.installed import InstalledIperf3

# A `one_off` server leaves its port some 10 ms after its client (3.12).
MAY_LEAVE = 0.25


@dataclass
class TaskContext:
    """What every task works with. Each child writes a few files into `state.children`."""

    config: Config
    registry: TaskRegistry
    outbox: Outbox
    ledger: Ledger
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.iperf3 = InstalledIperf3(self.config.iperf3_path)
        self.state = self.ledger.state

    def wait_for_port(self, entry: Entry) -> None:
        """Wait for an earlier server task of this agent that has the port of `entry`.

        If it is leaving, wait until it is gone. Otherwise wait MAY_LEAVE s and start anyway: it may
        listen on another address, and iperf3 reports a port that is in use. Raises TaskError when
        `entry` is told to stop.
        """
        while other := self.registry.server_on(entry.port, entry):
            ends = [other.gone, entry.stop.ordered]
            gone = gevent.wait(ends, timeout=None if other.is_leaving else MAY_LEAVE, count=1)
            entry.stop.raise_if_ordered("")
            # An earlier task without a child is itself waiting for this port, so it goes first.
            if not gone and other.pid and not other.is_leaving:
                return

    def record_child(self, entry: Entry, child: ChildProcess, report: Report) -> None:
        """Enter a child that was just started into the registry and the journal."""
        if not entry.started_at:
            self.metrics.wait_seconds.observe(time.monotonic() - entry.entered)
        entry.record_start(child.pid)
        record = self.ledger.journal.of(entry.claimed)
        record.child = ChildRecord(child.identity, report)
        self.ledger.journal.note(record)

    def end_child(self, entry: Entry, child: ChildProcess, ending: Ending) -> int:
        """Stop a child that still runs, without a grace if it wrote too much; its exit code."""
        if entry.pid:
            self.metrics.child_exits[str(entry.kind), ending.name.lower()] += 1
        grace = 0 if ending is Ending.OUTPUT else self.config.stop_grace
        child.stop(grace, entry.stop.force)
        entry.record_end(child.fate)
        return child.close()

    def new_report(self) -> Report:
        """A report with what is known before anything has run."""
        return Report(
            version=__version__,
            iperf3_version=self.iperf3.version,
            kernel=kernel(),
            congestion=default_congestion(),
        )
