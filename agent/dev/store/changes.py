"""Waiting for a change without polling."""

import time
from collections.abc import Callable
from typing import TypeVar

from gevent.event import Event

_Value = TypeVar("_Value")


class Changes:
    """Wakes everyone who waits, each time something changed."""

    def __init__(self) -> None:
        self._next = Event()

    def notify(self) -> None:
        """Let every waiter look again. Does not yield."""
        changed, self._next = self._next, Event()
        changed.set()

    def wait_for(self, predicate: Callable[[], _Value], timeout: float) -> _Value:
        """Wait until `predicate()` is true, at most `timeout` seconds; its last value.

        The predicate is called at once, after each change and at the end, and must not yield.
        """
        deadline = time.monotonic() + timeout
        while not (value := predicate()):
            if not self._next.wait(max(0.0, deadline - time.monotonic())):
                return predicate()
        return value
