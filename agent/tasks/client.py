"""An `iperf_client_run` task: one test, tried again while the server is not ready for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from agent.error_classes import ErrorClass
from agent.errors import StateUnusable
from agent.files import discard
from agent.host import route_to
from agent.iperf3 import verdict
from agent.iperf3.argv import JSON_STREAM, client_argv
from agent.iperf3.features import Features
from agent.iperf3.verdict import Verdict
from agent.iperf3.warnings import warnings_about
from agent.process.child import ChildProcess
from agent.process.monitor import FLOODED, Ending
from agent.process.output import map_file
from agent.protocol import ClientPayload, Document, Outcome, Report, client_payload, timestamp
from agent.registry import Entry
from agent.state.directory import StateDirectory, is_full
from agent.tasks.client_output import Following, output_file, written_document
from agent.tasks.context import TaskContext
from agent.tasks.policy import check_core, checked_target, within_limits
from agent.timing import jittered

# The Manager's clock (time + 10 s) starts with `started`, so a refused attempt must not start it.
STARTED_AFTER = 1.0
# A test may take this much longer than its time. With the grace it stays inside those 10 s.
DEADLINE_GRACE = 5.0

log = structlog.get_logger()


@dataclass
class _Attempt:
    """One run of iperf3: how it came to its end, and the file that it left, if any."""

    ending: Ending
    exit_code: int
    verdict: Verdict
    written: Path


def run_client(context: TaskContext, entry: Entry) -> Iterator[Outcome]:
    """Run the test of a client task and yield its one outcome; raises TaskError before it."""
    payload = client_payload(entry.task.payload)
    entry.port = payload.port
    entry.planned_seconds = None if payload.bytes else payload.time + payload.omit
    payload = within_limits(payload, context.config)
    check_core(payload.affinity)
    target = checked_target(
        payload.server_ip, payload.ip_version, context.config.allowed_targets, entry.stop.ordered
    )
    entry.stop.raise_if_ordered(" before the test began")
    features = context.iperf3.current()
    argv = client_argv(features, payload, target)
    report = context.report()
    report.argv = argv
    # A wait of no seconds would let others have their turn before the test starts.
    if payload.client_delay_seconds:
        entry.stop.ordered.wait(payload.client_delay_seconds)
    entry.stop.raise_if_ordered(" before the test began")
    delay = payload.retry_delay_seconds
    for left in range(payload.max_retries, -1, -1):
        report.attempts += 1
        attempt = _attempt(context, entry, argv, payload, target, report)
        error_class = attempt.verdict.error_class
        if attempt.ending is not Ending.ENDED or error_class not in verdict.RETRIABLE or not left:
            break
        log.info("the server is not ready", why=attempt.verdict.message, tries_left=left)
        if entry.stop.ordered.wait(jittered(delay)):
            break
        delay *= 2
        discard(attempt.written)
    yield _outcome(entry, payload, features, report, attempt)


def _route(target: str) -> tuple[str, int, int]:
    route = route_to(target)
    return route.interface, route.mtu, route.speed_mbps


def _attempt(
    context: TaskContext,
    entry: Entry,
    argv: list[str],
    payload: ClientPayload,
    target: str,
    report: Report,
) -> _Attempt:
    """Run iperf3 once, to its end or to whatever ends it."""
    streams = JSON_STREAM in argv
    stdout = output_file(context.state.children, entry.claimed, report.attempts, streams)
    report.started_at, report.finished_at = timestamp(datetime.now(UTC)), ""
    with ChildProcess(argv, stdout, stdout.with_suffix(".err")) as child:
        # Once the test is under way, as it takes a millisecond, and more the first time.
        report.interface, report.mtu, report.speed_mbps = _route(target)
        context.note_child(entry, child, report)
        following = Following(entry, child, context.config.max_output_bytes)
        log.info("client started", pid=child.pid, argv=" ".join(argv))
        ending = following.watch(STARTED_AFTER)
        told = ending is Ending.TIME
        if told:
            context.outbox.send_started(entry.claimed, child.pid)
            left = payload.time + payload.omit + DEADLINE_GRACE - STARTED_AFTER
            _note_company(context, entry, measured=True)
            ending = following.watch(left)
        if ending is not Ending.ENDED:
            grace = 0 if ending is Ending.OUTPUT else context.config.stop_grace
            child.stop(grace, entry.stop.force)
        entry.note_end(child.fate)
        exit_code = child.close()
        report.finished_at = timestamp(datetime.now(UTC))
        judged, written = _judge(context.state, child, exit_code, ending)
        context.metrics.child_exits["client", ending.name.lower()] += 1
        log.info("client ended", pid=child.pid, exit_code=exit_code, ending=ending.value)
        _note_company(context, entry, measured=judged.ok)
        if judged.ok and not told:
            context.outbox.send_started(entry.claimed, child.pid)
        return _Attempt(ending, exit_code, judged, written)


def _judge(
    state: StateDirectory, child: ChildProcess, exit_code: int, ending: Ending
) -> tuple[Verdict, Path]:
    """What became of a client that has ended, and the file that it is judged by."""
    stderr = child.take_stderr()
    if ending is Ending.OUTPUT:
        # A flood is not looked through: that could hold up every greenlet for minutes.
        return verdict.judge_client(exit_code, b"", stderr), child.stdout
    try:
        written = written_document(state, child.stdout)
        # A large document takes a while, and one that the page cache has lost longer.
        return state.run(_judge_file, written, exit_code, stderr), written
    except StateUnusable as error:
        return Verdict(False, ErrorClass.STATE_FULL, f"{error}: the document is lost"), child.stdout


def _judge_file(written: Path, exit_code: int, stderr: str) -> Verdict:
    with map_file(written) as output:
        return verdict.judge_client(exit_code, output, stderr)


def _note_company(context: TaskContext, entry: Entry, measured: bool) -> None:
    """Tests that run side by side disturb each other; one that was only refused disturbs none."""
    for other in context.registry.other_running_clients(entry):
        entry.accompanied = True
        other.accompanied |= measured


def _outcome(
    entry: Entry, payload: ClientPayload, features: Features, report: Report, attempt: _Attempt
) -> Outcome:
    """The outcome that the last attempt stands for; what the agent ended itself has failed."""
    judged = attempt.verdict
    report.error_class, message = _failure(entry, payload, attempt)
    if report.error_class:
        log.warning("task failed", error_class=report.error_class, error=message)
    if entry.accompanied:
        report.warnings.append("another test ran on this host at the same time")
    if judged.summary:
        report.warnings += warnings_about(judged.summary, features)
        report.congestion = judged.summary.end.sender_tcp_congestion or report.congestion
    document = None
    if judged.span:
        document = Document(str(attempt.written), *judged.span)
    else:
        discard(attempt.written)
    return Outcome(
        "failed" if report.error_class else "succeeded",
        report,
        exit_code=attempt.exit_code,
        stderr=message,
        document=document,
        figures=judged.figures,
    )


def _failure(
    entry: Entry, payload: ClientPayload, attempt: _Attempt
) -> tuple[ErrorClass | None, str]:
    """The error class and the words for an operator; None and no words after a success."""
    if attempt.ending is Ending.TIME:
        seconds = payload.time + payload.omit + DEADLINE_GRACE
        return ErrorClass.TIMED_OUT, f"timed out after {seconds:g} s: iperf3 had not ended by then"
    if attempt.ending is Ending.OUTPUT:
        return ErrorClass.BAD_OUTPUT, FLOODED
    if entry.stop.ordered.is_set() and not attempt.verdict.ok:
        return entry.stop.error_class, entry.stop.reason
    if attempt.ending is Ending.STOPPED:
        return entry.stop.error_class, f"{entry.stop.reason}; the test was cut short"
    if attempt.verdict.error_class is ErrorClass.BAD_OUTPUT and is_full(attempt.written.parent):
        return (
            ErrorClass.STATE_FULL,
            f"the disk of {attempt.written.parent} is full: the document is lost",
        )
    return attempt.verdict.error_class, attempt.verdict.message
