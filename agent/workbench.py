"""What every task greenlet works with, and the outcomes it makes."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from agent import __version__
from agent.config import Config
from agent.errors import TaskError
from agent.host import default_congestion, kernel
from agent.iperf3.features import Features, parse_features
from agent.listening import ListenTable
from agent.outbox import Outbox
from agent.process import text_output
from agent.registry import TaskRegistry
from agent.wire import Outcome, Report

# Seconds for `iperf3 --version`, which takes 2 ms.
PROBE_TIMEOUT = 10.0

log = structlog.get_logger()


@dataclass
class Workbench:
    """The rooms that a task needs, and the iperf3 that was found.

    `directory` holds the children's output, a few files for each task.
    """

    config: Config
    registry: TaskRegistry
    outbox: Outbox
    directory: Path
    listening: ListenTable = field(default_factory=ListenTable)
    found: Features | None = None

    def iperf3(self) -> Features:
        """The iperf3 to run, looked for again while it is missing; raises TaskError."""
        if self.found is None:
            self.found = probe_iperf3(self.config.iperf3_path)
            options = len(self.found.options)
            log.info("iperf3 found", version=self.found.version, options=options)
        return self.found

    def report(self) -> Report:
        """A report with what is known before anything has run."""
        return Report(
            version=__version__,
            iperf3_version=self.found.version if self.found else "",
            kernel=kernel(),
            congestion=default_congestion(),
        )


def probe_iperf3(path: str) -> Features:
    """Ask an iperf3 for its version and its options; raises TaskError with the remedy."""
    path = shutil.which(path) or path
    version = text_output([path, "--version"], PROBE_TIMEOUT)
    options = text_output([path, "--help"], PROBE_TIMEOUT)
    return parse_features(path, version, options)


def failed(report: Report, error: TaskError, exit_code: int = 1) -> Outcome:
    """The outcome of a task that could not run or went wrong without a document."""
    report.error_class = error.error_class
    return Outcome("failed", report, exit_code=exit_code, stderr=str(error))
