"""When loops act: steady ticks, and back-off after failures. All times are in seconds."""

import random
import time
from collections.abc import Iterator

from gevent.event import Event

BACKOFF_FIRST = 1.0
BACKOFF_CAP = 30.0
# An agent whose key is refused after it has registered goes on, and asks this often.
KEY_REFUSED_PAUSE = 30.0


def ticks(interval: float, stop: Event) -> Iterator[None]:
    """Yield now and then every `interval` seconds until `stop` is set.

    The ticks keep their phase on the monotonic clock. One that is missed because the body took
    too long, or because the process stood still, is skipped and never made up for.
    """
    due = time.monotonic()
    while not stop.is_set():
        yield
        late = time.monotonic() - due
        due += interval * (1 + late // interval)
        if stop.wait(max(0.0, due - time.monotonic())):
            return


def backoff(first: float = BACKOFF_FIRST, cap: float = BACKOFF_CAP) -> Iterator[float]:
    """Yield delays for one attempt after the other: exponential with full jitter.

    Each is drawn from the upper bound's whole range, which doubles from `first` up to `cap`, so
    that agents which failed together do not come back together.
    """
    bound = first
    while True:
        yield random.uniform(0, bound)
        bound = min(cap, bound * 2)


def jittered(delay: float, share: float = 0.2) -> float:
    """`delay` moved by at most `share` of itself to either side."""
    return delay * random.uniform(1 - share, 1 + share)
