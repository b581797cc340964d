"""When to act: steady ticks, and a back-off after failures. All times are in seconds."""

import random
import time
from collections.abc import Iterator
from itertools import repeat

from gevent.event import Event

from agent.errors import KeyRefused, ManagerUnavailable

BACKOFF_FIRST = 1.0
BACKOFF_CAP = 30.0
# A refused key, once the agent has registered, is tried again this often.
KEY_REFUSED_PAUSE = 30.0


def ticks(interval: float, stop: Event) -> Iterator[float]:
    """Yield at once, and then every `interval` seconds until `stop`; each value is the lateness.

    The second tick comes after a random part of the interval, and all later ones keep that phase
    on the monotonic clock. Without the random part, agents that started together would act
    together for ever. A tick that is missed, because the body took too long or the process stood
    still, is skipped and never made up for.
    """
    if stop.is_set():
        return
    yield 0.0
    due = time.monotonic() + random.uniform(0, interval)
    while not stop.wait(max(0.0, due - time.monotonic())):
        yield time.monotonic() - due
        behind = time.monotonic() - due
        due += interval * (1 + behind // interval)


class Backoff:
    """Delays between the attempts of one caller: exponential with full jitter.

    Each delay is drawn from the whole range up to a bound, which doubles from BACKOFF_FIRST to
    BACKOFF_CAP, so that agents which failed together do not come back together. After the draw
    up to the cap, attempts come every BACKOFF_CAP seconds and keep the phase that it gave them.
    If each delay were drawn anew, attempts would come twice as often, and twice as many agents
    would call in the first second after an outage.
    """

    def __init__(self) -> None:
        self._delays = _delays()

    def next(self, error: Exception | None = None) -> float:
        """Seconds until the next attempt after a failure: at least what the Manager asked for.

        A refused key has its own pause, which does not advance this back-off.
        """
        if isinstance(error, KeyRefused):
            return KEY_REFUSED_PAUSE
        asked_for = error.retry_after if isinstance(error, ManagerUnavailable) else None
        return max(next(self._delays), asked_for or 0)

    def reset(self) -> None:
        """Begin anew after a success."""
        self._delays = _delays()


def _delays() -> Iterator[float]:
    bound = BACKOFF_FIRST
    while bound < BACKOFF_CAP:
        yield random.uniform(0, bound)
        bound *= 2
    yield random.uniform(0, BACKOFF_CAP)
    yield from repeat(BACKOFF_CAP)


def pauses(pause: float, most: float, until: float) -> Iterator[float]:
    """Pauses between attempts: about `pause` seconds, twice that, and so on, up to `most`.

    The last one ends at `until`, a moment on the monotonic clock.
    """
    while (left := until - time.monotonic()) > 0:
        yield min(jittered(pause), most, left)
        pause = min(2 * pause, most)


def jittered(delay: float) -> float:
    """`delay`, made longer or shorter by a random amount of at most a fifth of it."""
    return delay * random.uniform(0.8, 1.2)
