"""A child observed while it runs, and held to the limits of the host's owner, both ways."""

import time
from collections import deque
from contextlib import suppress

import gevent
import structlog
from gevent.lock import BoundedSemaphore

from agent.config.settings import Config
from agent.diagnosis.observer import RUNNING, ObservedTest, Observer
from agent.error_classes import ErrorClass
from agent.iperf3.features import Features
from agent.native_threads import NativeThreads
from agent.process.child import ChildProcess
from agent.protocol import Report
from agent.quantities import rate
from agent.registry import Entry

# Seconds that a test may exceed its time by: these, or so many round trips if those are longer, up
# to the most. Without `omit`, that and STOP_GRACE fit in the 30 s that the Manager allows.
DEADLINE_GRACE, _ROUND_TRIPS, _MOST_GRACE = 5.0, 4, 20.0
# Seconds between two looks at a test with a limited bitrate.
_LIMITED = 0.25
# A test that is above its bitrate by this much is stopped, over these seconds or longer. iperf3
# makes up for a pause by sending faster, so that what counts is the mean of the last 30 s, less
# what the test had left unused before, of at most as many seconds.
_TOLERANCE, _AT_LEAST, _WINDOW = 1.1, 2.0, 30.0
# TCP's streams each send a block before iperf3 begins to pace them.
_BLOCK = 128 * 1024

# Of its own, as a disk that stands still holds up others.
_LOOKS = NativeThreads(2)

log = structlog.get_logger()


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
        self._block = max(block or 0, _BLOCK)
        running = RUNNING if config.max_bitrate is None else _LIMITED
        has_gsro = "--gsro" in features.options
        self._observer = Observer(child.pid, entry.planned_seconds, running, has_gsro)
        self._inode = self._reported = 0
        # When it was looked, and how many bytes the test had moved by then.
        self._moved: deque[tuple[float, int]] = deque()
        self._looked = time.monotonic()
        # Bits that the test has left unused.
        self._left = 0.0
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

    def report_on(self, report: Report) -> None:
        """Enter what was seen of the newest test that has ended, or else of the one that runs."""
        # It may have ended since the last look.
        self._look()
        found = self._observer.finished
        if found is None or found.inode == self._reported:
            found = self.test
        report.path, report.host = {}, {}
        if found:
            self._reported = found.inode
            report.path, report.host = found.path(), found.host()
            if found.interface.interface:
                report.interface, report.mtu, report.speed_mbps = found.interface

    def _look(self) -> None:
        # There may be no room for a thread at the moment.
        with self._one_at_a_time, suppress(OSError):
            # Threads for 300 idle servers would take a fifth of a core.
            if not self._observer.is_idle():
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
                self._child.ended.wait(self._observer.wait)
        except Exception:
            log.exception("a bug in the observation of a child: its test goes on")

    def _beyond(self, test: ObservedTest) -> str:
        """The limit that the test is beyond, in words; empty if there is none."""
        now, moved = time.monotonic(), test.moved
        if test.inode != self._inode:
            self._inode = test.inode
            # At UDP it is counted from the first sight on.
            self._moved = deque([(now if test.is_udp else self._looked, 0)])
            self._left = 0.0
        last, carried = self._moved[-1]
        stands_still = moved == carried
        self._moved.append((now, moved or 0))
        while self._moved[0][0] < now - _WINDOW:
            self._moved.popleft()
        most = self._config.max_test_seconds
        if (
            self._entry.kind == "server"
            and now - test.began > most + self.grace
            and not stands_still
        ):
            return f"the test took longer than this agent's MAX_TEST_SECONDS of {most}"
        limit = self._config.max_bitrate
        if moved is None or limit is None:
            return ""
        self._left += limit * _TOLERANCE * (now - last) - (moved - carried) * 8
        self._left = min(self._left, limit * _WINDOW)
        since, before = self._moved[0]
        seconds = max(_AT_LEAST, now - since)
        bits = (moved - before) * 8
        at_once = 0 if test.is_udp else self._block * 8 * test.streams
        if self._left >= 0 or bits <= limit * _TOLERANCE * seconds + at_once:
            return ""
        words = f"the test moved {rate(bits / max(now - since, _LIMITED))}, both ways together"
        return f"{words}: that is over this agent's MAX_BITRATE of {limit}"
