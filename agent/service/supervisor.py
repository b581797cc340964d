"""Greenlets whose failure is noticed: a crash would else leave the process alive and silent."""

from collections.abc import Callable
from typing import Any

import gevent
import structlog
from gevent.event import Event

from agent.errors import AgentError

log = structlog.get_logger()


class Supervisor:
    """Starts greenlets. `failed` is set, and `failure` kept, when the first of them fails."""

    def __init__(self) -> None:
        self.failed = Event()
        self.failure: AgentError | None = None

    def spawn(self, function: Callable[..., None], *args: Any) -> gevent.Greenlet:
        """Run `function` in a greenlet of its own."""
        greenlet: gevent.Greenlet = gevent.spawn(self._guarded, function, *args)
        return greenlet

    def _guarded(self, function: Callable[..., None], *args: Any) -> None:
        try:
            function(*args)
        except Exception as error:
            if not isinstance(error, AgentError):
                log.exception("a bug: the agent stops")
                error = AgentError(f"{type(error).__name__}: {error}")
            self.failure = self.failure or error
            self.failed.set()
