"""An `iperf_server_start` task: a server from its start to its end, and what it served."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import gevent
import msgspec
import structlog

from agent.error_classes import ErrorClass
from agent.errors import TaskError
from agent.files import discard
from agent.iperf3 import verdict
from agent.iperf3.argv import server_argv
from agent.iperf3.documents import Span
from agent.logs.outage import Outage
from agent.process.child import ChildProcess
from agent.process.monitor import FLOODED, Ending, watch
from agent.process.output import free_start, map_file, size_of
from agent.process.ports import find_listener, is_listening
from agent.protocol import (
    Claimed,
    Document,
    Figures,
    Outcome,
    Report,
    ServerPayload,
    server_payload,
    timestamp,
)
from agent.registry import Entry
from agent.tasks.context import TaskContext
from agent.tasks.policy import check_core

# A server listens 3 to 11 ms after its start (measured, 3.9 to 3.21).
LISTEN_POLL = 0.005
LISTEN_DEADLINE = 10.0
# A `one_off` server is gone some 10 ms after its client (3.12).
MAY_LEAVE = 0.25
# A served test is to be reported within a second.
OUTPUT_POLL = 0.5
COPY_BYTES = 1024**2

log = structlog.get_logger()


def run_server(context: TaskContext, entry: Entry) -> Iterator[Outcome]:
    """Start a server and yield its outcomes: that it listens, each test served, how it ended.

    Raises TaskError when it never listened.
    """
    payload = server_payload(entry.task.payload)
    entry.port = payload.port
    check_core(payload.affinity)
    _wait_for_port(context, entry)
    argv = server_argv(context.iperf3.current(), payload)
    report = context.report()
    report.argv, report.attempts = argv, 1
    report.started_at = timestamp(datetime.now(UTC))
    stdout = server_output(context.state.children, entry.claimed)
    child = ChildProcess(argv, stdout, stdout.with_suffix(".err"))
    context.note_child(entry, child, report)
    log.info("server started", pid=child.pid, port=payload.port, argv=" ".join(argv))
    server = _Server(context, entry, payload, report, child)
    try:
        server.wait_until_it_listens()
        yield from server.serve()
    finally:
        server.clean_up()


def _wait_for_port(context: TaskContext, entry: Entry) -> None:
    """Wait for servers of ours that are leaving the port, and a moment for one that may be.

    One that stays need not be in the way, as it may listen on another address: iperf3 will tell.
    """
    while other := context.registry.server_on(entry.port, entry):
        leaving = other.stop.ordered.is_set()
        ends = [other.gone, entry.stop.ordered]
        gone = gevent.wait(ends, timeout=None if leaving else MAY_LEAVE, count=1)
        entry.stop.raise_if_ordered("")
        # One without a child waits for the port itself, and comes first.
        if not gone and other.pid and not other.stop.ordered.is_set():
            return


class _Server:
    """A server child while it lives: the proof of its listening, and its documents."""

    def __init__(
        self,
        context: TaskContext,
        entry: Entry,
        payload: ServerPayload,
        report: Report,
        child: ChildProcess,
    ) -> None:
        self._context, self._entry, self._payload = context, entry, payload
        self._report, self._child = report, child
        self._answer = {"started": True, "pid": child.pid, "port": payload.port}
        self._newest = served_file(child.stdout)
        self._fresh = child.stdout.with_suffix(".fresh")
        self._figures: Figures | None = None
        self._sent = 0
        self._seen = 0
        self._read_up_to = 0
        # Whether the newest document is still to be told.
        self._owed = False
        self._outage = Outage("what the server serves can be kept again")
        self._born = time.monotonic()

    def wait_until_it_listens(self) -> None:
        """Return once the child holds the listening socket; raises TaskError otherwise."""
        while not is_listening(self._child.pid, self._payload.port):
            ending = self._watch(LISTEN_POLL)
            if ending is Ending.ENDED:
                raise self._died_early()
            if ending is Ending.OUTPUT:
                raise TaskError(ErrorClass.BAD_OUTPUT, FLOODED)
            if ending is Ending.STOPPED:
                raise TaskError(self._entry.stop.error_class, self._entry.stop.reason)
            if time.monotonic() - self._born > LISTEN_DEADLINE:
                words = f"iperf3 did not listen on port {self._payload.port}"
                raise TaskError(ErrorClass.OTHER, f"{words} within {LISTEN_DEADLINE:g} s")

    def serve(self) -> Iterator[Outcome]:
        """Yield that it listens, then a document for each test, then how it ended."""
        pid = self._child.pid
        log.info("server listens", pid=pid, port=self._payload.port)
        self._context.outbox.send_started(self._entry.claimed, pid)
        yield self._outcome()
        ending = Ending.TIME
        while ending is Ending.TIME and not self._time_is_over():
            ending = self._watch(OUTPUT_POLL)
            if ending is not Ending.OUTPUT:
                yield from self._served()
        # Whoever wants the port from now on waits for it.
        self._entry.stop.order(ErrorClass.OTHER, "the server has ended")
        self._context.metrics.child_exits["server", ending.name.lower()] += 1
        self._end(0 if ending is Ending.OUTPUT else self._context.config.stop_grace)
        if ending is not Ending.OUTPUT:
            self._read_documents()
        self._report.ended = self._why_it_ended(ending)
        log.info("server ended", pid=pid, why=self._report.ended)
        yield self._outcome(self._newest if self._newest.exists() else None)

    def clean_up(self) -> None:
        """Leave no child and no file, whatever happened."""
        self._end(self._context.config.stop_grace)
        self._child.close()
        # The newest document is the outbox's, with the last outcome.
        for path in (self._child.stdout, self._child.stderr, self._fresh):
            discard(path)

    def _watch(self, seconds: float) -> Ending:
        most = self._context.config.max_output_bytes + self._read_up_to
        return watch(self._child, self._entry.stop.ordered, seconds, most)

    def _end(self, grace: float) -> None:
        if not self._child.ended.is_set():
            self._child.stop(grace, self._entry.stop.force)
        self._entry.note_end(self._child.fate)

    def _most_seconds(self) -> float | None:
        limits = (self._payload.max_seconds, self._context.config.max_server_seconds)
        return min((limit for limit in limits if limit is not None), default=None)

    def _time_is_over(self) -> bool:
        most = self._most_seconds()
        return most is not None and time.monotonic() - self._born >= most

    def _why_it_ended(self, ending: Ending) -> str:
        if ending is Ending.TIME:
            return f"stopped after its {self._most_seconds():g} s"
        if ending is Ending.STOPPED:
            return self._entry.stop.reason
        if ending is Ending.OUTPUT:
            return FLOODED
        code = self._child.close()
        if self._payload.one_off and code == 0 and self._newest.exists():
            return "served its one test"
        if code < 0:
            return f"iperf3 was killed by signal {-code}, not by this agent"
        return f"iperf3 ended by itself: {self._judged().message}"

    def _judged(self) -> verdict.Verdict:
        """What the last words of a child that has ended mean."""
        code, stderr = self._child.close(), self._child.take_stderr()
        try:
            with map_file(self._child.stdout, self._read_up_to) as output:
                return verdict.judge_server_exit(code, output, stderr)
        except OSError:
            return verdict.judge_server_exit(code, b"", stderr)

    def _died_early(self) -> TaskError:
        judged = self._judged()
        assert judged.error_class
        message = judged.message
        if judged.error_class is ErrorClass.PORT_IN_USE:
            message = f"port {self._payload.port} is in use by {self._holder()}: {message}"
        return TaskError(judged.error_class, message)

    def _holder(self) -> str:
        if other := self._context.registry.server_on(self._payload.port, self._entry):
            return f"this agent's own task {other.task.id}"
        return self._context.state.run(find_listener, self._payload.port) or "another process"

    def _served(self) -> Iterator[Outcome]:
        """The newest document, if it is to be told and the disk lets the outbox have it."""
        self._read_documents()
        if not self._owed:
            return
        own = Path(f"{self._newest}.{self._sent + 1}")
        try:
            os.link(self._newest, own)
        except OSError as error:
            self._cannot_be_kept(error)
            return
        self._sent += 1
        self._owed = False
        self._outage.record_success()
        yield self._outcome(own, self._figures)

    def _read_documents(self) -> None:
        """Take the newest document, if there is a new one, out of the child's output.

        What the disk does not take now is tried again at the next look.
        """
        size = size_of(self._child.stdout)
        if size == self._seen:
            return
        try:
            with map_file(self._child.stdout, self._read_up_to) as output:
                # A large document takes a while.
                served = self._context.state.run(verdict.last_served, output)
                if served.span:
                    self._keep(output, served.span)
                    self._owed, self._figures = True, served.figures
            self._read_up_to += served.done
            self._seen = size
            free_start(self._child.stdout, self._read_up_to)
        except OSError as error:
            self._cannot_be_kept(error)

    def _keep(self, output: memoryview, span: Span) -> None:
        """Make it the newest; the outbox may still hold a link to the one before."""
        with output[slice(*span)] as document, open(self._fresh, "wb") as file:
            for start in range(0, len(document), COPY_BYTES):
                file.write(document[start : start + COPY_BYTES])
                gevent.sleep(0)
        os.replace(self._fresh, self._newest)

    def _cannot_be_kept(self, error: OSError) -> None:
        self._outage.record_failure("the document of a served test cannot be kept", error)

    def _outcome(self, newest: Path | None = None, figures: Figures | None = None) -> Outcome:
        """What is known of the server now: the newest document it served, else that it listens."""
        self._report.finished_at = timestamp(datetime.now(UTC))
        report = msgspec.structs.replace(self._report)
        final = bool(report.ended)
        if newest is None:
            return Outcome("succeeded", report, answer=self._answer, final=final)
        document = Document(str(newest), 0, newest.stat().st_size)
        return Outcome("succeeded", report, document=document, final=final, figures=figures)


def server_output(children: Path, claimed: Claimed) -> Path:
    """Where the server of a task writes: under its number, and a key that no other task has."""
    return children / f"{claimed.task.id}.{claimed.key}.json"


def served_file(stdout: Path) -> Path:
    """Where the newest document of a served test lies, beside the server's own output."""
    return stdout.with_suffix(".served")
