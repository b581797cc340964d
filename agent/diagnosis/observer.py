"""Looks at a child: which test it runs, from the first sight on."""

import math
import time

from agent.diagnosis.children import ChildSockets
from agent.diagnosis.observed import ObservedTest
from agent.diagnosis.sockets import TCP

# Seconds between two looks: at an idle child, at one whose test begins (this share of its age), and
# at one whose test runs. Expensive ones are rarer, so that all of them take 0.25 % of a core.
_SHORTEST, _IDLE, _SHARE, RUNNING, _COST = 0.02, 1.0, 0.3, 1.0, 400
# Seconds before a test's planned end of the last look: at its end the sockets are gone.
_BEFORE_THE_END = 0.08


class Observer:
    """Looks at a child when it is time to.

    `test` is the one that runs, None between two, and `finished` is the one before. A client's test
    takes `planned_seconds`, if that is known. `wait` is the seconds until the next look, which are
    at most `running` while a test runs. `has_gsro` is for an iperf3 with that option.
    `sockets` are the child's, of which `ports` tell those of its tests.
    """

    def __init__(
        self,
        pid: int,
        planned_seconds: float | None,
        running: float,
        has_gsro: bool = True,
        **ports: int,
    ) -> None:
        self._planned, self._running, self._has_gsro = planned_seconds, running, has_gsro
        self.sockets = ChildSockets(pid, **ports)
        self._born = time.monotonic()
        self.test: ObservedTest | None = None
        self.finished: ObservedTest | None = None
        self.wait = _SHORTEST

    def is_idle(self) -> bool:
        """Whether the last look has found a server without a client."""
        return not self.test and self.sockets.only_listen()

    def look(self) -> None:
        """Look now. It takes a millisecond, and 6 ms at 128 streams: call it in a native thread."""
        began, streams = time.thread_time(), 0
        try:
            sockets = self.sockets.read()
        except OSError:
            sockets = []
        control = next((each for each in sockets if each.protocol == TCP), None)
        if self.test and (control is None or control.inode != self.test.inode):
            self.test, self.finished = None, self.test
        if control:
            self.test = self.test or ObservedTest(control, self._has_gsro)
            streams = self.test.streams
            data = [each for each in sockets if each.inode != control.inode]
            self.test.add(self.sockets.pid, control, data, self._until_last() <= 0)
            began += self.test.aside
        self.wait = self._next(time.thread_time() - began, streams)

    def _next(self, cost: float, streams: int) -> float:
        now, test = time.monotonic(), self.test
        if not test or not streams or test.streams > streams:
            idle = min(_IDLE, 2 * self._running)
            return max(_SHORTEST, min(idle, _SHARE * (now - self._born)))
        # A limit of the owner's is worth more than that.
        most = math.inf if self._running >= RUNNING else 2 * self._running
        pause = max(self._running, min(cost * _COST, most))
        last = self._until_last()
        return min(pause, last) if last > 0 else pause

    def _until_last(self) -> float:
        """Seconds until the last look before the end, which a server does not know."""
        if not self.test or not self._planned:
            return math.inf
        return self.test.began + self._planned - _BEFORE_THE_END - time.monotonic()
