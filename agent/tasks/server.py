"""An `iperf_server_start` task: a server from its start to its end."""

import math
import time
from collections.abc import Callable, Iterator

import msgspec
import structlog

from agent.diagnosis.children import family
from agent.errors import ErrorClass, TaskError
from agent.files import discard
from agent.iperf3.argv import secrets_of, server_argv
from agent.iperf3.verdict import Served, Verdict, judge_server_exit
from agent.process.child import ChildProcess, Ending
from agent.process.output import in_thread, view_of
from agent.process.ports import find_listener, serves
from agent.process.watch import Watch
from agent.protocol import Document, Outcome, ServerPayload, read_payload, utc_now
from agent.registry import Entry
from agent.tasks.context import TaskContext
from agent.tasks.observation import Observation
from agent.tasks.policy import check_core
from agent.tasks.served import NO_TEST, ServedTests, server_output

# A server listens 3 to 11 ms after its start (measured, 3.9 to 3.21).
LISTEN_POLL = 0.005
LISTEN_DEADLINE = 10.0
# An event loop has no timer for a server without a limit.
LONGEST_WAIT = 3600.0
LOST = "Documents of served tests may be lost: the agent's disk had an error."

log = structlog.get_logger()


def run_server(context: TaskContext, entry: Entry) -> Iterator[Outcome]:
    """Start a server and yield its outcomes: that it listens, each test served, how it ended.

    Raises TaskError when it never listened.
    """
    payload = read_payload(entry.task.payload, ServerPayload)
    entry.port = payload.port
    check_core(payload.affinity)
    context.wait_for_port(entry)
    server = _RunningServer(context, entry, payload)
    try:
        server.wait_until_it_listens()
        yield from server.serve()
    finally:
        server.clean_up()


class _RunningServer:
    def __init__(self, context: TaskContext, entry: Entry, payload: ServerPayload) -> None:
        """Start the child; raises TaskError."""
        self._context, self._entry, self._payload = context, entry, payload
        self._features = context.iperf3.current()
        argv = server_argv(self._features, payload)
        self._report = context.new_report()
        self._report.argv, self._report.attempts, self._report.started_at = argv, 1, utc_now()
        stdout = server_output(context.state.children, entry.claimed)
        secrets = secrets_of(payload)
        self._child = ChildProcess(argv, stdout, stdout.with_suffix(".err"), secrets)
        context.record_child(entry, self._child, self._report)
        log.info("server started", pid=self._child.pid, port=payload.port, argv=" ".join(argv))
        self._served = ServedTests(stdout)
        limits = (payload.max_seconds, context.config.max_server_seconds)
        self._max_seconds = min(math.inf if limit is None else limit for limit in limits)
        self._born = time.monotonic()

    def wait_until_it_listens(self) -> None:
        """Return once the child has the listening socket; raises TaskError otherwise."""
        while not (found := serves(self._child.pid, self._payload.port)):
            # One that cannot listen ends at once.
            if found is None and time.monotonic() - self._born > 0.5:
                log.warning("iperf3 hides its sockets: somebody listens on its port, so it does")
                return
            ending = self._watch(LISTEN_POLL)
            if ending is Ending.ENDED:
                raise self._early_end()
            if ending is Ending.OUTPUT:
                raise TaskError(ErrorClass.BAD_OUTPUT, self._child.flooded)
            self._entry.stop.raise_if_ordered("")
            if time.monotonic() - self._born > LISTEN_DEADLINE:
                words = f"iperf3 did not listen on port {self._payload.port}"
                raise TaskError(ErrorClass.OTHER, f"{words} within {LISTEN_DEADLINE:g} s")

    def serve(self) -> Iterator[Outcome]:
        """Yield that it listens, then a document for each test, then how it ended."""
        pid = self._child.pid
        log.info("server listens", pid=pid, port=self._payload.port)
        self._context.outbox.send_started(self._entry.claimed, pid)
        # Not before: it cannot have a test.
        seen = Observation(self._context.config, self._features, self._entry, self._child)
        yield self._outcome()
        ending = None
        while not ending:
            left = self._born + self._max_seconds - time.monotonic()
            ending = self._watch(min(left, LONGEST_WAIT), self._look) if left > 0 else Ending.TIME
            yield from self._tests(seen)
        self._entry.has_served = True
        exit_code = self._context.end_child(self._entry, self._child, ending)
        if ending is not Ending.OUTPUT:
            self._child.looks.finish()
            self._served.read_rest()
            yield from self._tests(seen)
            if self._served.may_lack_some:
                self._report.warnings.append(LOST)
        self._report.ended = self._why_it_ended(ending, exit_code)
        log.info("server ended", pid=pid, why=self._report.ended)
        yield self._outcome(self._served.newest, self._served.last, final=True)

    def clean_up(self) -> None:
        """Stop the child and remove its files, whatever happened."""
        ending = Ending.STOPPED if self._child.exit_code is None else Ending.ENDED
        self._context.end_child(self._entry, self._child, ending)
        # `.served` is not removed here: the outbox took it over with the last outcome.
        in_thread(discard, self._child.stdout, self._child.stderr, self._served.copy)

    def _look(self, size: int) -> bool:
        # Each client of the server could else fill the disk on, which has no room now.
        return self._served.look(size, self._context.state.trouble)

    def _tests(self, seen: Observation) -> Iterator[Outcome]:
        while self._served.tests:
            document, test = self._served.tests.popleft()
            for moved in test.moved:
                seen.charge(*moved)
            seen.report_on(self._report, test.figures, not test.error, test.client_port)
            yield self._outcome(document, test)

    def _watch(self, seconds: float, read: Callable[[int], bool] | None = None) -> Ending | None:
        """Why the child has ended or must end; None if it has written, or so many seconds pass."""
        # What was read is a hole in the file by now, and does not count.
        most = self._context.config.max_output_bytes + self._served.read_up_to
        ending = Watch(self._child, self._entry.stop.ordered, most, read).wait_once(seconds)
        return None if ending is Ending.TIME else ending

    def _why_it_ended(self, ending: Ending, exit_code: int) -> str:
        if ending is Ending.TIME:
            return f"stopped after its {self._max_seconds:g} s"
        if ending is Ending.STOPPED:
            if self._entry.stop.error_class is ErrorClass.NOT_ALLOWED:
                self._report.error_class = ErrorClass.NOT_ALLOWED
            self._report.stopped = self._entry.stop.is_wanted
            return self._entry.stop.reason
        if ending is Ending.OUTPUT:
            return self._child.flooded
        ended_well, newest = self._payload.one_off and exit_code == 0, self._served.newest
        if ended_well and newest and not self._served.last.error:
            return "served its one test"
        judged = self._judge(exit_code)
        # One that no client came to has written nothing.
        came = newest or judged.span or judged.unread
        if ended_well and self._payload.idle_timeout and not came:
            return f"no client came within its {self._payload.idle_timeout} s"
        if judged.error_class is not ErrorClass.KILLED:
            return f"iperf3 ended by itself: {judged.message}"
        if exit_code < 0:
            return f"iperf3 was killed by signal {-exit_code}, not by this agent"
        return f"iperf3 was ended by a signal, not by this agent: {judged.message}"

    def _judge(self, exit_code: int) -> Verdict:
        # What it said of its newest test may be why it has ended, and a warning on stderr is not.
        said, output = self._served.last.error, memoryview(b"")
        may_be_why = self._payload.one_off or said.startswith("interrupt - ")
        stderr = "\n".join([self._child.take_stderr(), said if may_be_why else ""])
        try:
            output = in_thread(view_of, self._child.stdout, self._served.read_up_to)
        except OSError as error:
            log.warning("the output of a server cannot be read", error=str(error))
        return in_thread(judge_server_exit, exit_code, output, stderr)

    def _early_end(self) -> TaskError:
        judged, port = self._judge(self._child.close()), self._payload.port
        message = judged.message
        if judged.error_class is ErrorClass.PORT_IN_USE:
            # In a native thread: it may read thousands of files of /proc.
            pid, holder = self._context.state.run(find_listener, port, self._payload.bind)
            tasks = self._context.registry.entries()
            own = next((each for each in tasks if each.pid and pid in family(each.pid)), None)
            holder = f"this agent's own task {own.task.id}" if own else holder
            message = f"port {port} is in use by {holder}: {message}"
        return TaskError(judged.error_class or ErrorClass.OTHER, message)

    def _outcome(
        self, document: Document | None = None, test: Served = NO_TEST, *, final: bool = False
    ) -> Outcome:
        """A success, with the document of a test and what that says, if there is one."""
        self._report.finished_at = utc_now()
        warnings = self._report.warnings + self._served.doubts(test)
        listening = {"started": True, "pid": self._child.pid, "port": self._payload.port}
        return Outcome(
            "succeeded",
            msgspec.structs.replace(self._report, warnings=warnings),
            answer={} if document else listening,
            document=document,
            final=final,
            figures=test.figures,
        )
