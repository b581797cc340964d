"""An `iperf_client_run` task: one test, repeated while its server is not ready."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import msgspec
import structlog

from agent.errors import ErrorClass
from agent.files import discard
from agent.host import route_to
from agent.iperf3.argv import JSON_STREAM, client_argv, secrets_of
from agent.iperf3.features import Features
from agent.process.child import ChildProcess, Ending
from agent.process.output import in_thread
from agent.process.watch import Watch
from agent.protocol import ClientPayload, Outcome, Report, read_payload, utc_now
from agent.registry import RETIRES, Entry
from agent.tasks.attempt import Attempt, judge_attempt, user_of_server
from agent.tasks.client_output import StreamReader, output_file
from agent.tasks.context import TaskContext
from agent.tasks.observation import DEADLINE_GRACE, Observation
from agent.tasks.policy import check_burst, check_core, checked_target, within_limits
from agent.timing import pauses

# Seconds between two attempts, unless the task asks for more, and for all of them together.
LONGEST_PAUSE = 60.0
ATTEMPTS_TAKE = 3600.0
# iperf3 connects one data socket after the other, a round trip each, after some 6 for the rest.
_ROUND_TRIPS = 7
# A round trip in seconds where the kernel does not tell: more than by satellite, which is 0.7.
_LONG = 1.0
# Seconds for each that is connected: some had to ask again, as their packet was lost.
_OFTEN_LOST = 0.5
# Seconds between two looks at whether a test has begun.
LOOK = 0.25

log = structlog.get_logger()


def run_client(context: TaskContext, entry: Entry) -> Iterator[Outcome]:
    """Run the test of a client task and yield its one outcome; raises TaskError before it."""
    payload = read_payload(entry.task.payload, ClientPayload)
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
    yield test.last_attempt().outcome(entry, features, report)


@dataclass
class _ClientTest:
    """The test of a client task; `late` is what to say of an attempt whose time is over."""

    context: TaskContext
    features: Features
    entry: Entry
    payload: ClientPayload
    report: Report
    late: str = ""

    def last_attempt(self) -> Attempt:
        """Attempt the test until its server is ready for it, or no try or time is left."""
        entry, delay = self.entry, self.payload.retry_delay_seconds
        delays = pauses(delay, max(delay, LONGEST_PAUSE), time.monotonic() + ATTEMPTS_TAKE)
        for left in range(self.payload.max_retries, -1, -1):
            attempt = self._attempt()
            if attempt.verdict.error_class is ErrorClass.BUSY:
                users = user_of_server(self.context.registry, entry, self.payload.server_ip)
                attempt.explain(users)
            # A server that is busy after a whole test could have it as often as there are attempts.
            if not attempt.is_refused or entry.has_begun or not left:
                break
            pause, why = next(delays, None), attempt.verdict.message
            if pause is None:
                attempt.explain("not tried again after an hour of attempts")
                break
            retry_in = round(pause, 2)
            log.info("the server is not ready", why=why, tries_left=left, retry_in=retry_in)
            entry.is_waiting = True
            if not entry.may_retry:
                entry.stop.order(*RETIRES)
            if entry.stop.ordered.wait(pause):
                break
            in_thread(discard, attempt.output)
        return attempt

    def _attempt(self) -> Attempt:
        """Run iperf3 once, to its end or to whatever ends it."""
        context, entry, report = self.context, self.entry, self.report
        report.attempts += 1
        report.started_at, report.finished_at = utc_now(), ""
        streams = JSON_STREAM in report.argv
        stdout = output_file(context.state.children, entry.claimed, report.attempts, streams)
        stderr, secrets = stdout.with_suffix(".err"), secrets_of(self.payload)
        with closing(ChildProcess(report.argv, stdout, stderr, secrets)) as child:
            seen = Observation(context.config, self.features, entry, child, self.payload.length)
            # Looked up after the start: it takes a millisecond, and more the first time. What the
            # test's sockets say counts more.
            source = self.payload.bind or self.payload.server_ip
            route = route_to(source, self.payload.bind_dev)
            report.interface, report.mtu, report.speed_mbps = route
            context.record_child(entry, child, report)
            log.info("client started", pid=child.pid, argv=" ".join(report.argv))
            ending = self._watch(child, seen)
            exit_code = context.end_child(entry, child, ending)
            report.finished_at = utc_now()
            attempt = judge_attempt(context.state, child, exit_code, ending, self.late)
            attempt.complete(report.argv, entry.has_begun)
            judged = attempt.verdict
            orderly = bool(judged.summary and not judged.summary.error)
            seen.report_on(report, judged.figures, orderly)
            log.info("client ended", pid=child.pid, exit_code=exit_code, ending=ending.value)
            self._mark_disturbed(measured=judged.ok)
            if judged.ok and not entry.has_begun:
                context.outbox.send_started(entry.claimed, child.pid)
            return attempt

    def _watch(self, child: ChildProcess, seen: Observation) -> Ending:
        """Wait for the child, and tell the Manager that it runs once its test has begun.

        The Manager's clock starts with that, so a test that was refused must not start it. Returns
        why the wait is over.
        """
        payload, entry = self.payload, self.entry
        reader = StreamReader(child.stdout, entry)
        most = self.context.config.max_output_bytes
        wait = Watch(child, entry.stop.ordered, most, reader.read_new).wait
        if ending := self._wait_for_beginning(reader, seen, wait):
            return ending
        entry.has_begun = True
        self.context.outbox.send_started(entry.claimed, child.pid)
        self._mark_disturbed(measured=True)
        # iperf3 knows no time for a number of bytes, so that nothing would end it before.
        grace = 0.0 if payload.bytes else DEADLINE_GRACE
        seconds = payload.time + payload.omit + grace
        ending = wait(seconds)
        if ending is Ending.TIME and not payload.bytes:
            # Its end has to pass the queues that it has filled.
            longer = seen.grace - DEADLINE_GRACE
            ending, seconds = wait(longer), seconds + longer
        self.late = f"timed out after {seconds:g} s: iperf3 had not ended by then"
        return ending

    def _wait_for_beginning(
        self, reader: StreamReader, seen: Observation, wait: Callable[[float], Ending]
    ) -> Ending | None:
        """Return None once the test has begun, or else why the wait for that is over.

        A newer iperf3 says so in its stream; of an older one all data sockets are connected then.
        """
        payload, entry, took = self.payload, self.entry, 0.0
        sockets = payload.parallel * (2 if payload.bidir else 1)
        while not reader.has_begun:
            test = seen.test
            streams = test.streams if test else 0
            if streams >= sockets and not reader.is_stream:
                break
            # Counted: the time in which the agent stood still, and saw nothing, has no part in it.
            took += LOOK
            round_trips = (_ROUND_TRIPS + sockets) * ((test and test.round_trip) or _LONG)
            rest = payload.connect_timeout_ms / 1000 + DEADLINE_GRACE + _OFTEN_LOST * streams
            if took > rest + round_trips:
                # If no connection can be seen, or all of them, the test may well run.
                if test is None or streams >= sockets:
                    break
                words = f"timed out after {rest + round_trips:.0f} s"
                self.late = f"{words}: the test had not begun by then"
                return Ending.TIME
            ending = wait(LOOK)
            if ending is not Ending.TIME:
                return ending
        if entry.planned_seconds is not None:
            entry.planned_seconds += took
        return None

    def _mark_disturbed(self, measured: bool) -> None:
        """Tests at the same time disturb each other; one that was only refused disturbs none."""
        for other in self.context.registry.other_running_clients(self.entry):
            self.entry.was_disturbed = True
            other.was_disturbed |= measured
