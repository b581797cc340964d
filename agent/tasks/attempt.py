"""One attempt at a client task that has ended: why it failed, and what to report of it."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import gevent
import structlog
from msgspec.structs import replace

from agent.errors import ErrorClass, StateUnusable, class_of
from agent.files import discard
from agent.host import interface_of
from agent.iperf3.argv import with_argv
from agent.iperf3.features import Features
from agent.iperf3.verdict import RETRIABLE, Verdict
from agent.iperf3.warnings import warnings_about
from agent.process.child import ChildProcess, Ending
from agent.process.output import in_thread
from agent.protocol import Document, Outcome, Report, ServerPayload, read_payload, timestamp
from agent.registry import Entry, Stop, TaskRegistry
from agent.state.directory import StateDirectory
from agent.tasks.client_output import figures_of, judge_output

# How often a document is read and written while that fails, and every how many seconds.
JUDGE_TRIES, JUDGE_PAUSE = 5, 1.0

log = structlog.get_logger()


@dataclass
class Attempt:
    """One run of iperf3 that has ended; `output` is the file that it wrote."""

    ending: Ending
    exit_code: int
    verdict: Verdict
    output: Path

    @property
    def is_refused(self) -> bool:
        """Whether the server was not ready; another attempt a little later may succeed."""
        return self.ending is Ending.ENDED and self.verdict.error_class in RETRIABLE

    def explain(self, why: str) -> None:
        """Have its message say more, if there is more to say."""
        words = "; ".join(filter(None, [self.verdict.message, why]))
        self.verdict = replace(self.verdict, message=words)

    def complete(self, argv: list[str], has_begun: bool) -> None:
        """Add what the command line says of its figures, or of its failure."""
        own, _, core = dict(zip(argv, argv[1:])).get("-A", "").partition(",")
        if figures := self.verdict.figures:
            self.verdict = replace(self.verdict, figures=with_argv(figures, argv))
        elif core and self.verdict.error_class is ErrorClass.PEER_LOST:
            self.explain(f"the server's host may have no core {core}")
        elif own and not has_begun and self.verdict.message.endswith("code 1 and did not say why"):
            # As in a container that may not use it. Up to 3.12 iperf3 says so.
            self.verdict = replace(self.verdict, error_class=ErrorClass.ARGUMENTS)
            self.explain(f"it may not be allowed to use core {own}")
        elif not has_begun and "control socket has closed" in self.verdict.message:
            why = "refuses this login" if "--username" in argv else "wants a login"
            self.explain(f"a server of iperf3 3.21 or newer that {why} says no more")

    def outcome(self, entry: Entry, features: Features, report: Report) -> Outcome:
        """What to report of the test, if this was the last attempt at it."""
        judged = self.verdict
        report.error_class, message, report.stopped = self._failure(entry.stop)
        if report.error_class:
            log.warning("task failed", error_class=report.error_class, error=message)
        if entry.was_disturbed:
            report.warnings.append("another test ran on this host at the same time")
        if judged.summary and judged.figures:
            report.warnings += warnings_about(judged.summary, judged.figures, features, report)
            report.congestion = judged.summary.end.sender_tcp_congestion or report.congestion
        document = Document(str(self.output), *judged.span) if judged.span else None
        if document is None:
            in_thread(discard, self.output)
        return Outcome(
            "failed" if report.error_class else "succeeded",
            report,
            exit_code=self.exit_code,
            stderr=message,
            document=document,
            figures=judged.figures,
        )

    def _failure(self, stop: Stop) -> tuple[ErrorClass | None, str, bool]:
        """Error class, message for an operator, and whether a person wanted it; empty if none."""
        judged = self.verdict
        if self.ending in (Ending.TIME, Ending.OUTPUT):
            return judged.error_class, judged.message, False
        if stop.ordered.is_set() and not judged.ok:
            ended = self.ending is Ending.ENDED
            last = f"; the last attempt: {judged.message}" if ended else ""
            return stop.error_class, f"{stop.reason}{last}", stop.is_wanted
        if self.ending is Ending.STOPPED:
            return stop.error_class, f"{stop.reason}; the test was cut short", stop.is_wanted
        directory, is_lost = self.output.parent, judged.error_class is ErrorClass.BAD_OUTPUT
        if is_lost and not in_thread(os.statvfs, directory).f_bavail:
            words = f"the disk of {directory} is full: the document is lost"
            return ErrorClass.STATE_FULL, words, False
        return judged.error_class, judged.message, False


def judge_attempt(
    state: StateDirectory, child: ChildProcess, exit_code: int, ending: Ending, late: str = ""
) -> Attempt:
    """Judge what a child that has ended left; `late` are the words if its time was over."""
    stderr, output = child.take_stderr(), child.stdout
    if ending is Ending.OUTPUT:
        # A flood is not read: that could hold up every greenlet for minutes.
        return Attempt(ending, exit_code, Verdict(ErrorClass.BAD_OUTPUT, child.flooded), output)
    for left in range(JUDGE_TRIES - 1, -1, -1):
        try:
            judged, output = judge_output(state, output, exit_code, stderr)
            break
        except StateUnusable as error:
            if left:
                log.warning("the document cannot be read or written now", error=str(error))
                gevent.sleep(JUDGE_PAUSE)
                continue
            words, figures = f"{error}: the document is lost", figures_of(state, output)
            judged = Verdict(class_of(error), words, figures=figures)
    if ending is Ending.TIME:
        judged = replace(judged, error_class=ErrorClass.TIMED_OUT, message=late)
    return Attempt(ending, exit_code, judged, output)


def user_of_server(registry: TaskRegistry, entry: Entry, target: str) -> str:
    """Who uses the server that a client found busy, in words; empty if this host does not know."""
    for user in registry.other_running_clients(entry):
        if user.port == entry.port and user.has_begun and user.peer and user.peer[0] == target:
            return f"this agent's task {user.task.id} has used it since {timestamp(user.peer[1])}"
    server = registry.server_on(entry.port, entry)
    with suppress(OSError):
        if server and server.peer and _listens_on(server, target):
            address, since = server.peer
            words = f"this agent's task {server.task.id} has served {address}"
            return f"{words} since {timestamp(since)}"
    return ""


def _listens_on(server: Entry, target: str) -> bool:
    """Whether it is for sure the server's own socket that an address of this host leads to."""
    payload = read_payload(server.task.payload, ServerPayload)
    if payload.bind_dev or payload.bind not in (None, target) or not interface_of(target).interface:
        return False
    return payload.ip_version in (None, 6 if ":" in target else 4)
