"""The lag of the event loop: how late a timer rings that is set for every second."""

import time

from gevent.event import Event

from agent.metrics import LATE_BOUNDS, Histogram

INTERVAL = 1.0


class LoopLag:
    """Measures the lag. `seconds` is the histogram of what was measured."""

    def __init__(self) -> None:
        self.seconds = Histogram(LATE_BOUNDS)

    def measure(self, stop: Event) -> None:
        """Measure once a second until `stop`."""
        while True:
            due = time.monotonic() + INTERVAL
            if stop.wait(INTERVAL):
                return
            self.seconds.observe(max(0.0, time.monotonic() - due))
