"""A disk whose fdatasync takes as long as a test says."""

import os
import threading

import gevent
import pytest
from gevent.event import Event


class SlowDisk:
    """Holds each fdatasync of this process from its making until `release`.

    `reached` is set once there is one, and `syncs` counts them. `release` with a number lets them
    fail for that reason.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.syncs = 0
        self.reached = Event()
        self._hub = gevent.get_hub().loop
        self._free = native_event()
        self._fails_with = 0
        self._fdatasync = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def release(self, fails_with: int = 0) -> None:
        """Let those that are held go on, and all later ones."""
        self._fails_with = fails_with
        self._free.set()

    def _sync(self, descriptor: int) -> None:
        """It runs in a native thread, whose waits must not be gevent's."""
        self.syncs += 1
        self._hub.run_callback_threadsafe(self.reached.set)
        self._free.wait()
        if self._fails_with:
            raise OSError(self._fails_with, os.strerror(self._fails_with))
        self._fdatasync(descriptor)


def native_event() -> threading.Event:
    """An event for native threads, whose wait is not gevent's."""
    from gevent.monkey import get_original

    event: threading.Event = get_original("threading", "Event")()
    return event
