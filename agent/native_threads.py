"""Blocking work in native threads, while the hub turns.

A disk that fails raises an error. One that stands still, such as NFS without its server, lets a
call wait for as long as that lasts, and in the hub's own thread it would hold up everything.
"""

import _socket
import errno
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Generic, TypeVar, TypeVarTuple

import gevent
import msgspec
from gevent.resolver import thread
from gevent.threadpool import ThreadPool
from gevent.util import wrap_errors

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")


def _prepare(kind: type[msgspec.Struct]) -> None:
    """Let msgspec make here what it keeps of each type.

    It does so when a type is first decoded, and crashes where two threads do it at once (0.22.0).
    """
    for each in kind.__subclasses__():
        msgspec.json.Decoder(each)
        _prepare(each)


class NativeThreads(ThreadPool):
    """At most `most` threads for one kind of work, which then waits for no other kind.

    A host may have no room for one more thread (pids.max, TasksMax, RLIMIT_NPROC). gevent's pool
    raises RuntimeError then, with the work in its queue, where it is done later.
    """

    def __init__(self, most: int, **options: Any) -> None:
        super().__init__(most, **options)  # type: ignore[no-untyped-call]

    def call(self, function: Callable[[*_Arguments], _Result], *args: *_Arguments) -> _Result:
        """Call it in a native thread, with the context of the log; raises its error."""
        # The pool would print the traceback of an error that is raised in it.
        run = wrap_errors(Exception, copy_context().run)
        found = self.apply(run, (function, *args))  # type: ignore[no-untyped-call]
        if isinstance(found, Exception):
            raise found
        result: _Result = found
        return result

    def spawn(self, *work: Any, **named: Any) -> Any:
        """As ever; OSError if there is no thread and none can be started."""
        if not self.size:
            _prepare(msgspec.Struct)
            try:
                self.size = 1
            except RuntimeError as error:
                raise OSError(errno.EAGAIN, f"{error}: too many run on this host") from error
        return super().spawn(*work, **named)  # type: ignore[no-untyped-call]

    def _adjust_step(self) -> None:
        # Those that are there do the work as well, one after the other.
        with suppress(RuntimeError):
            super()._adjust_step()  # type: ignore[no-untyped-call]


class Resolver(thread.Resolver):
    """Looks up names in native threads, which wait for a busy process; an address needs none."""

    def getaddrinfo(self, *asked: Any) -> Any:
        """As ever; the last of its six parameters are the flags."""
        with suppress(OSError):
            return _socket.getaddrinfo(*(*asked[:-1], asked[-1] | _socket.AI_NUMERICHOST))
        return super().getaddrinfo(*asked)  # type: ignore[no-untyped-call]


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
