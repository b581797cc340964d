"""An `iperf_client_run` task: one test, repeated while its server is not ready."""

import time
from collections.abc import Iterator
from contextlib import closing

import msgspec
import structlog

from agent.errors import ErrorClass
from agent.files import discard
from agent.host import route_to
from agent.iperf3.argv import JSON_STREAM, client_argv
from agent.iperf3.features import Features
from agent.iperf3.warnings import warnings_about
from agent.process.child import ChildProcess, Ending
from agent.process.output import in_thread
from agent.process.watch import Watch
from agent.protocol import ClientPayload, Document, Outcome, Report, client_payload, utc_now
from agent.registry import RETIRES, Entry
from agent.tasks.attempt import Attempt, judge_attempt, user_of_server
from agent.tasks.beginning import LOOK, Beginning
from agent.tasks.client_output import StreamReader, output_file
from agent.tasks.context import TaskContext
from agent.tasks.observation import DEADLINE_GRACE, Observation
from agent.tasks.policy import check_burst, check_core, checked_target, within_limits
from agent.timing import pauses

# Seconds between two attempts, unless the task asks for more, and for all of them together.
LONGEST_PAUSE = 60.0
ATTEMPTS_TAKE = 3600.0

_LATE = "timed out after {:g} s: iperf3 had not ended by then"

log = structlog.get_logger()


def run_client(context: TaskContext, entry: Entry) -> Iterator[Outcome]:
    """Run the test of a client task and yield its one outcome; raises TaskError before it."""
    payload = client_payload(entry.task.payload)
    entry.port = payload.port
    entry.planned_seconds = None if payload.bytes else payload.time + payload.omit
    payload = within_limits(payload, context.config)
    check_core(payload.affinity)
    allowed = context.config.allowed_targets
    target = checked_target(payload.server_ip, payload.ip_version, allowed, entry.stop.ordered)
    payload = msgspec.structs.replace(payload, server_ip=target)
    entry.stop.raise_if_ordered(" before the test began")
    features = context.iperf3.current()
    check_burst(payload, features, context.config)
    report = context.new_report()
    report.argv = client_argv(features, payload, target)
    # Even a wait of no seconds would let other greenlets run before the test starts.
    if payload.client_delay_seconds:
        entry.stop.ordered.wait(payload.client_delay_seconds)
    entry.stop.raise_if_ordered(" before the test began")
    test = _ClientTest(context, features, entry, payload, report)
    yield test.outcome(test.last_attempt())


class _ClientTest:
    def __init__(
        self,
        context: TaskContext,
        features: Features,
        entry: Entry,
        payload: ClientPayload,
        report: Report,
    ) -> None:
        self._context, self._features, self._entry = context, features, entry
        self._payload, self._report = payload, report
        # iperf3 knows no time for a number of bytes, so that nothing would end it before.
        grace = 0.0 if payload.bytes else DEADLINE_GRACE
        self._max_seconds = payload.time + payload.omit + grace
        self._late = _LATE.format(self._max_seconds)

    def last_attempt(self) -> Attempt:
        """Attempt the test until its server is ready for it, or no try or time is left."""
        delay = self._payload.retry_delay_seconds
        delays = pauses(delay, max(delay, LONGEST_PAUSE), time.monotonic() + ATTEMPTS_TAKE)
        for left in range(self._payload.max_retries, -1, -1):
            attempt = self._attempt()
            if attempt.verdict.error_class is ErrorClass.BUSY:
                registry, target = self._context.registry, self._payload.server_ip
                attempt.explain(user_of_server(registry, self._entry, target))
            if not attempt.may_be_repeated or not left:
                break
            pause, why = next(delays, None), attempt.verdict.message
            if pause is None:
                attempt.explain("not tried again after an hour of attempts")
                break
            retry_in = round(pause, 2)
            log.info("the server is not ready", why=why, tries_left=left, retry_in=retry_in)
            self._entry.is_waiting = True
            if not self._entry.may_retry:
                self._entry.stop.order(ErrorClass.INTERRUPTED, RETIRES)
            if self._entry.stop.ordered.wait(pause):
                break
            in_thread(discard, attempt.output)
        return attempt

    def outcome(self, attempt: Attempt) -> Outcome:
        """What to report of the test."""
        judged, report = attempt.verdict, self._report
        report.error_class, message = attempt.failure(self._entry.stop, self._late)
        if report.error_class:
            log.warning("task failed", error_class=report.error_class, error=message)
        if self._entry.was_disturbed:
            report.warnings.append("another test ran on this host at the same time")
        if judged.summary and judged.figures:
            features, figures = self._features, judged.figures
            report.warnings += warnings_about(judged.summary, figures, features, report)
            report.congestion = judged.summary.end.sender_tcp_congestion or report.congestion
        document = Document(str(attempt.output), *judged.span) if judged.span else None
        if document is None:
            in_thread(discard, attempt.output)
        return Outcome(
            "failed" if report.error_class else "succeeded",
            report,
            exit_code=attempt.exit_code,
            stderr=message,
            document=document,
            figures=judged.figures,
        )

    def _attempt(self) -> Attempt:
        """Run iperf3 once, to its end or to whatever ends it."""
        entry, report = self._entry, self._report
        report.attempts += 1
        report.started_at, report.finished_at = utc_now(), ""
        streams = JSON_STREAM in report.argv
        stdout = output_file(self._context.state.children, entry.claimed, report.attempts, streams)
        with closing(ChildProcess(report.argv, stdout, stdout.with_suffix(".err"))) as child:
            block = self._payload.length
            seen = Observation(self._context.config, self._features, entry, child, block)
            # Looked up after the start: it takes a millisecond, and more the first time. What the
            # test's sockets say counts more.
            source = self._payload.bind or self._payload.server_ip
            route = route_to(source, self._payload.bind_dev)
            report.interface, report.mtu, report.speed_mbps = route
            self._context.record_child(entry, child, report)
            log.info("client started", pid=child.pid, argv=" ".join(report.argv))
            ending, has_begun = self._watch(child, seen)
            self._context.end_child(entry, child, ending)
            exit_code = child.close()
            report.finished_at = utc_now()
            state = self._context.state
            attempt = judge_attempt(state, child, exit_code, ending, has_begun)
            attempt.complete(self._payload)
            judged = attempt.verdict
            orderly = bool(judged.summary and not judged.summary.error)
            seen.report_on(report, judged.figures, orderly)
            self._context.metrics.child_exits["client", ending.name.lower()] += 1
            log.info("client ended", pid=child.pid, exit_code=exit_code, ending=ending.value)
            self._mark_disturbed(measured=attempt.verdict.ok)
            if attempt.verdict.ok and not has_begun:
                self._context.outbox.send_started(entry.claimed, child.pid)
            return attempt

    def _watch(self, child: ChildProcess, seen: Observation) -> tuple[Ending, bool]:
        """Wait for the child, and tell the Manager that it runs once its test has begun.

        The Manager's clock starts with that, so a test that was refused must not start it. Returns
        why the wait is over, and whether it had begun.
        """
        reader = StreamReader(child.stdout, self._entry)
        most = self._context.config.max_output_bytes
        wait = Watch(child, self._entry.stop.ordered, most, reader.read_new).wait
        beginning = Beginning(self._payload, reader, seen)
        while (has_begun := beginning.look()) is None:
            ending = wait(LOOK)
            if ending is not Ending.TIME:
                return ending, False
        if not has_begun:
            words = f"timed out after {beginning.allowed:.0f} s"
            self._late = f"{words}: the test had not begun by then"
            return Ending.TIME, False
        self._entry.has_begun = True
        self._context.outbox.send_started(self._entry.claimed, child.pid)
        self._mark_disturbed(measured=True)
        if self._entry.planned_seconds is not None:
            self._entry.planned_seconds += beginning.took
        ending = wait(self._max_seconds)
        if ending is Ending.TIME and not self._payload.bytes:
            longer = seen.grace - DEADLINE_GRACE
            self._late = _LATE.format(self._max_seconds + longer)
            ending = wait(longer)
        return ending, True

    def _mark_disturbed(self, measured: bool) -> None:
        """Tests at the same time disturb each other; one that was only refused disturbs none."""
        for other in self._context.registry.other_running_clients(self._entry):
            self._entry.was_disturbed = True
            other.was_disturbed |= measured
