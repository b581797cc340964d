"""Blocking work in native threads, while the hub turns.

A disk that fails raises an error. One that stands still, such as NFS without its server, lets a
call wait for as long as that lasts, and in the hub's own thread it would hold up everything.
"""

import time
from collections.abc import Callable
from contextvars import copy_context
from functools import cached_property
from typing import Generic, TypeVar, TypeVarTuple

import gevent
from gevent.threadpool import ThreadPool
from gevent.util import wrap_errors

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")


class NativeThreads:
    """At most `most` threads for one kind of work, which then waits for no other kind.

    `errors` are what that work may raise.
    """

    def __init__(self, most: int, errors: tuple[type[Exception], ...] = (OSError,)) -> None:
        self._most, self._errors = most, errors

    def call(self, function: Callable[[*_Arguments], _Result], *args: *_Arguments) -> _Result:
        """Call it in a native thread, with the context of the log; raises its error."""
        # The pool would print the traceback of an error that is raised in it.
        found = self._pool.apply(wrap_errors(self._errors, copy_context().run), (function, *args))
        if isinstance(found, self._errors):
            raise found
        result: _Result = found
        return result

    @cached_property
    def _pool(self) -> ThreadPool:
        return ThreadPool(self._most)


class Looks(Generic[_Result]):
    """Looks at what may stand still: each is waited for at most `seconds`, and then goes on alone.

    There is one at a time.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._look: gevent.Greenlet | None = None
        self._until = 0.0

    def take(self, look: Callable[[], _Result]) -> _Result | None:
        """Take the look in a greenlet, unless the last one goes on; raises what has ended one.

        Returns what the last one has found, None if it goes on.
        """
        if self._look is None or self._look.ready():
            self.finish()
            # With the context, as the log lines in it name the task.
            self._look = gevent.spawn(copy_context().run, look)
            self._until = time.monotonic() + self._seconds
        self._look.join(max(0.0, self._until - time.monotonic()))
        return self.finish() if self._look.ready() else None

    def finish(self) -> _Result | None:
        """Wait for the end of the last look; returns what it has found, or raises what ended it."""
        # A greenlet that has ended is false.
        if self._look is None:
            return None
        found: _Result = self._look.get()
        return found
