"""Blocking work in native threads, while the hub turns."""

from collections.abc import Callable
from contextvars import copy_context
from functools import cached_property
from typing import TypeVar, TypeVarTuple

from gevent.threadpool import ThreadPool
from gevent.util import wrap_errors

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")


class NativeThreads:
    """At most `most` threads for one kind of work, which then waits for no other kind."""

    def __init__(self, most: int) -> None:
        self._most = most

    def call(self, function: Callable[[*_Arguments], _Result], *args: *_Arguments) -> _Result:
        """Call it in a native thread, with the context of the log; raises its OSError."""
        # The pool would print the traceback of an error that is raised in it.
        found = self._pool.apply(wrap_errors(OSError, copy_context().run), (function, *args))
        if isinstance(found, OSError):
            raise found
        result: _Result = found
        return result

    @cached_property
    def _pool(self) -> ThreadPool:
        return ThreadPool(self._most)
