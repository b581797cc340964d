"""When loops act: steady ticks, and back-off after failures. All times are in seconds."""

import random
import time
from collections.abc import Iterator

from gevent.event import Event

BACKOFF_FIRST = 1.0
BACKOFF_CAP = 30.0
# An agent whose key is refused after it has registered goes on, and asks this often.
KEY_REFUSED_PAUSE = 30.0


def ticks(interval: float, stop: Event) -> Iterator[float]:
    """Yield at once, and then every `interval` seconds until `stop`; each is how late it came.

    The second tick comes after a random part of the interval, and all others keep that phase on
    the monotonic clock: were it not random, agents that started together would act together for
    ever. A tick that is missed because the body took too long, or because the process stood
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


def backoff(first: float = BACKOFF_FIRST, cap: float = BACKOFF_CAP) -> Iterator[float]:
    """Yield delays for one attempt after the other: exponential with full jitter.

    Each is drawn from the upper bound's whole range, which doubles from `first` up to `cap`, so
    that agents which failed together do not come back together. The last draw stands as a
    phase: from there on attempts come every `cap` seconds. Drawn anew each time, they would come
    twice as often, and twice as many agents in the first second after an outage.
    """
    bound = first
    while bound < cap:
        yield random.uniform(0, bound)
        bound *= 2
    yield random.uniform(0, cap)
    while True:
        yield cap


def jittered(delay: float, share: float = 0.2) -> float:
    """`delay` moved by at most `share` of itself to either side."""
    return delay * random.uniform(1 - share, 1 + share)
