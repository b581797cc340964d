"""A clock that moves only when the code under test waits, so that times can be compared exactly."""

import time
from collections.abc import Sequence

import gevent
import pytest
from gevent.event import Event


class Clock:
    """Takes the place of the modules `time` and `gevent` in a module that waits.

    `now` is in seconds, and `pauses` has the length of every wait, in order.
    """

    Timeout = gevent.Timeout

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        """The seconds that have passed."""
        return self.now

    def time(self) -> float:
        """The same in Unix time."""
        return 1.8e9 + self.now

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass at once."""
        self.pauses.append(seconds)
        self.now += seconds
        gevent.sleep(0)

    def wait(
        self, objects: Sequence[object], timeout: float | None = None, count: int | None = None
    ) -> list[object]:
        """As gevent.wait; unless something is ready already, all of the timeout passes at once."""
        ready: list[object] = gevent.wait(objects, None if timeout is None else 0, count)
        if not ready and timeout:
            self.sleep(timeout)
        return ready

    def event(self) -> "ClockedEvent":
        """An event; waiting for it takes no real time."""
        return ClockedEvent(self)


class FastClock:
    """The same, but time passes by itself, and fast: many may wait at once."""

    def __init__(self, times: float) -> None:
        """A clock that is so many times as fast as a real one."""
        self._times = times

    def monotonic(self) -> float:
        """The seconds that have passed."""
        return time.monotonic() * self._times

    def wait(
        self, objects: Sequence[object], timeout: float | None = None, count: int | None = None
    ) -> list[object]:
        """As gevent.wait."""
        real = None if timeout is None else timeout / self._times
        found: list[object] = gevent.wait(objects, real, count)
        return found


def install_clock(monkeypatch: pytest.MonkeyPatch, *modules: str) -> Clock:
    """A new clock in the place of these: each is `time` or `gevent` in a module of the agent."""
    clock = Clock()
    for module in modules:
        monkeypatch.setattr(f"agent.{module}", clock)
    return clock


class ClockedEvent(Event):
    """An event of a clock. Each wait takes `late` seconds more than it should."""

    def __init__(self, clock: Clock) -> None:
        Event.__init__(self)
        self._clock = clock
        self.late = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        """Let the timeout pass at once, unless the event is set."""
        if timeout is None or Event.is_set(self):
            return bool(Event.wait(self, timeout))
        self._clock.sleep(timeout)
        self._clock.now += self.late
        return bool(Event.is_set(self))
