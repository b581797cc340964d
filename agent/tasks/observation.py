"""A child observed while it runs, and held to the limits of the host's owner, both ways."""

import time
from contextlib import suppress

import gevent
import structlog
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore

from agent.config.settings import Config
from agent.diagnosis.halves import enter_diagnoses
from agent.diagnosis.observed import ObservedTest
from agent.diagnosis.observer import RUNNING, Observer
from agent.errors import ErrorClass
from agent.host import Route
from agent.iperf3.features import Features
from agent.native_threads import NativeThreads
from agent.process.child import ChildProcess
from agent.protocol import Figures, Report
from agent.quantities import rate
from agent.registry import Entry
from agent.tasks.allowance import BLOCK, Allowance

# Seconds that a test may exceed its time by: these, or so many round trips if those are longer, up
# to the most. Without `omit`, that and STOP_GRACE fit in the 30 s that the Manager allows.
DEADLINE_GRACE, _ROUND_TRIPS, _MOST_GRACE = 5.0, 4, 20.0
# Seconds between two looks at a test with a limited bitrate, and at all idle servers together.
_LIMITED, _IDLE = 0.25, 0.25

# Of its own, as a disk that stands still holds up others.
_LOOKS = NativeThreads(2)

log = structlog.get_logger()


class IdleServers:
    """Waits for the clients of idle servers with one look at all of them."""

    def __init__(self) -> None:
        self._waiting = dict[Observer, AsyncResult]()

    def wait(self, observer: Observer) -> float:
        """Wait until there is something to see; returns when there was nothing yet."""
        if not self._waiting:
            gevent.spawn(self._run)
        self._waiting[observer] = news = AsyncResult()
        looked: float = news.get()
        return looked

    def _run(self) -> None:
        looked = time.monotonic()
        while self._waiting:
            gevent.sleep(_IDLE)
            now = time.monotonic()
            try:
                for observer in [each for each in self._waiting if each.sockets.have_changed()]:
                    self._waiting.pop(observer).set(looked)
                looked = now
            except Exception:
                log.exception("a bug in the look at idle servers: it is taken again")


_IDLE_SERVERS = IdleServers()


class Observation:
    """Observes a child in a greenlet of its own until it ends.

    A test beyond MAX_BITRATE, or a server's beyond MAX_TEST_SECONDS, is an order to stop for the
    child's task, as `not_allowed`. Where the kernel tells nothing of a child, nothing is observed.
    """

    def __init__(
        self,
        config: Config,
        features: Features,
        entry: Entry,
        child: ChildProcess,
        block: int | None = None,
    ) -> None:
        """Begin; `block` is how many bytes a client sends at a time, if its task says so."""
        self._config, self._entry, self._child = config, entry, child
        known = None if entry.kind == "server" else max(block or 0, BLOCK)
        running = RUNNING if config.max_bitrate is None else _LIMITED
        has_gsro = "--gsro" in features.options
        port = {"own" if entry.kind == "server" else "peer": entry.port}
        self._observer = Observer(child.pid, entry.planned_seconds, running, has_gsro, **port)
        # Bytes at the last look: of the test that runs, and by its port of each not yet charged.
        self._inode = self._moved = 0
        self._seen: dict[int, int] = {}
        self._looked = time.monotonic()
        limit = config.max_bitrate
        self._allowance = Allowance(limit, known, self._looked) if limit else None
        self._one_at_a_time = BoundedSemaphore()
        gevent.spawn(self._run)

    @property
    def test(self) -> ObservedTest | None:
        """The test that runs, with its streams and its round trip; None between two tests."""
        return self._observer.test

    @property
    def grace(self) -> float:
        """Seconds that the test may exceed its time by: its end passes the queues it has filled."""
        round_trip = self.test.round_trip if self.test else 0.0
        return max(DEADLINE_GRACE, min(_MOST_GRACE, round(_ROUND_TRIPS * round_trip, 1)))

    def report_on(
        self,
        report: Report,
        figures: Figures | None,
        orderly: bool,
        client_port: int | None = None,
    ) -> None:
        """Enter what was seen of a client's test, or of that of a server whose client had the port.

        iperf3's document has these figures, and says whether the test has ended as it should. Of a
        server's test that nobody saw, as it was over so soon, nothing but them is known.
        """
        # It may have ended since the last look.
        self._look()
        tests = [each for each in (self._observer.finished, self.test) if each]
        found = next((each for each in tests if client_port in (None, each.port)), None)
        if found and found is self._observer.finished:
            found.end()
        report.path, report.host = (found.path(), found.host()) if found else ({}, {})
        route = found.interface if found else Route()
        if route.interface or client_port is not None:
            report.interface, report.mtu, report.speed_mbps = route
        is_client = self._entry.kind == "client"
        enter_diagnoses(report, found, figures, orderly, is_client=is_client)

    def charge(self, client_port: int, moved: int, streams: int) -> None:
        """Charge a test that was served with what no look at it has seen of its bytes.

        Its client had the port, and it so many streams that send blocks.
        """
        seen, now = self._seen.pop(client_port, None), time.monotonic()
        if self._allowance is None:
            return
        if seen is None:
            self._allowance.begin(now)
        elif self.test and self.test.port == client_port:
            # It is looked at once more.
            self._moved = max(self._moved, moved)
        if self._allowance.rate_beyond(8 * max(0, moved - (seen or 0)), streams, now):
            words = f"a test of {moved} bytes is more than its tests before have left"
            limit = f"this agent's MAX_BITRATE of {self._config.max_bitrate}"
            self._entry.stop.order(ErrorClass.NOT_ALLOWED, f"{words} of {limit}")

    def _look(self) -> None:
        # There may be no room for a thread at the moment.
        with self._one_at_a_time, suppress(OSError):
            _LOOKS.call(self._observer.look)

    def _run(self) -> None:
        structlog.contextvars.bind_contextvars(task_id=self._entry.task.id)
        try:
            while not self._child.ended.is_set():
                self._look()
                test = self.test
                self._entry.peer = (test.peer, test.since) if test else None
                if test and test.streams and (words := self._beyond(test)):
                    self._entry.stop.order(ErrorClass.NOT_ALLOWED, words)
                self._looked = time.monotonic()
                if self._observer.is_idle():
                    self._looked = max(self._looked, _IDLE_SERVERS.wait(self._observer))
                else:
                    self._child.ended.wait(self._observer.wait)
        except Exception:
            log.exception("a bug in the observation of a child: its test goes on")

    def _beyond(self, test: ObservedTest) -> str:
        """The limit that the test is beyond, in words; empty if there is none."""
        now, limit, most = time.monotonic(), self._config.max_bitrate, self._config.max_test_seconds
        if test.inode != self._inode:
            self._inode, self._moved = test.inode, 0
            if self._allowance:
                self._allowance.begin(self._looked)
        moved = None if test.moved is None else max(0, test.moved - self._moved)
        self._moved = max(self._moved, test.moved or 0)
        if self._entry.kind == "server":
            self._seen[test.port] = self._moved
        is_late = self._entry.kind == "server" and now - test.began > most + self.grace
        # One that stands still harms nobody.
        if is_late and moved != 0:
            return f"the test took longer than this agent's MAX_TEST_SECONDS of {most}"
        if self._allowance is None or moved is None:
            return ""
        beyond = self._allowance.rate_beyond(moved * 8, 0 if test.is_udp else test.streams, now)
        words = f"the test moved {rate(beyond)}, both ways together"
        if test.is_interfaces:
            words = f"the test's interface carried {rate(beyond)}, for whomever"
        return f"{words}: that is over this agent's MAX_BITRATE of {limit}" if beyond else ""
