"""How late the event loop is: a timer that should ring every second, and when it does."""

import time

from gevent.event import Event

from agent.metrics import LATE_BOUNDS, Histogram

EVERY = 1.0


class LoopLag:
    """A histogram of the lags in seconds, filled while it is measured."""

    def __init__(self) -> None:
        self.seconds = Histogram(LATE_BOUNDS)

    def measure(self, stop: Event) -> None:
        """Observe the lag once a second until `stop`."""
        while True:
            due = time.monotonic() + EVERY
            if stop.wait(EVERY):
                return
            self.seconds.observe(max(0.0, time.monotonic() - due))
