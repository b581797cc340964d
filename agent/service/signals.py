"""Signals: handlers count, set an event, and do nothing else.

The first TERM or INT asks for a drain, the second for a kill, the third ends the process at
once, with the status a shell shows for that signal. USR1 asks the agent to retire: to end when the
last client test that runs has, as an upgrade wants it.
"""

import os
import signal
from typing import Any

import gevent
from gevent.event import Event


class StopSignals:
    """Turns signals into events, from `install()` until `remove()`; `name` is the last one's."""

    def __init__(self) -> None:
        self.drain = Event()
        self.kill = Event()
        self.retire = Event()
        self.name = ""
        self._handles: list[Any] = []

    def install(self) -> None:
        """Take the signals over; the handles are kept, or gevent would drop them."""
        self._handles = [
            gevent.signal_handler(number, self._received, number)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
        ]

    def remove(self) -> None:
        """Give the signals back to Python's defaults."""
        for handle in self._handles:
            handle.cancel()
        self._handles = []

    def _received(self, number: signal.Signals) -> None:
        self.name = number.name
        if number == signal.SIGUSR1:
            self.retire.set()
            return
        if self.kill.is_set():
            os._exit(128 + number)
        if self.drain.is_set():
            self.kill.set()
        self.drain.set()
