"""Turns of the event loop: many peers that are ready at once leave some time of each to others."""

import time
from functools import cache

import gevent

# What peers may have of one turn, in which no heartbeat begins, and how long those wait that come
# after it.
TURN_SECONDS = 0.02
NEXT_TURN = 0.001


class _Turn:
    """The present turn; `began` is when peers had their first moment of it, None before that."""

    def __init__(self) -> None:
        self.began: float | None = None
        # The loop calls that before each wait for what is ready.
        self._next = gevent.get_hub().loop.prepare(ref=False)
        self._next.start(setattr, self, "began", None)


@cache
def _present() -> _Turn:
    return _Turn()


def await_turn() -> None:
    """Wait for a turn of which peers have had little so far."""
    turn = _present()
    turn.began = turn.began or time.monotonic()
    while time.monotonic() - turn.began >= TURN_SECONDS:
        gevent.sleep(NEXT_TURN)
        turn.began = turn.began or time.monotonic()
