"""One outage for all: while the Manager is away, claims, `started` and results wait together."""

import time
from collections.abc import Callable
from typing import TypeVar

from agent.errors import KeyRefused, ManagerAway, ManagerError
from agent.manager.registration import Registration
from agent.protocol import Origin
from agent.timing import Backoff

_Answer = TypeVar("_Answer")


class Gate:
    """Through it go all calls but heartbeats. It is closed for a while when one finds no Manager.

    That is so when a call has no answer, 429 or 503, and when the key is refused. Any other
    failure holds back nothing but its own call. If each call had a back-off of its own, an agent
    with many results would be back before all others.
    """

    def __init__(self, registration: Registration) -> None:
        self._registration = registration
        self._backoff = Backoff()
        self._closed_at = self._opens_at = 0.0

    @property
    def origin(self) -> Origin | None:
        """The origin of what the Manager hands out now."""
        return self._registration.origin

    @property
    def closed_for(self) -> float:
        """Seconds until calls may be made; 0 while the gate is open."""
        return max(0.0, self._opens_at - time.monotonic())

    def open(self) -> None:
        """Let the next call be made at once."""
        self._opens_at = 0.0

    def attempt(self, call: Callable[[], _Answer]) -> _Answer:
        """Make a call, after a registration if one is due; raises the ManagerError of either."""
        began = time.monotonic()
        try:
            self._registration.renew()
            answer = call()
        except (KeyRefused, ManagerAway) as error:
            now = time.monotonic()
            if began >= self._closed_at:
                self._closed_at, self._opens_at = now, now + self._backoff.next(error)
            elif isinstance(error, ManagerAway):
                # It was under way when the gate closed, and failed for the same reason.
                self._opens_at = max(self._opens_at, now + (error.retry_after or 0))
            raise
        except ManagerError:
            self._backoff.reset()
            raise
        self._backoff.reset()
        return answer
