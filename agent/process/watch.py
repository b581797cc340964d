"""The wait for a running child, with a look at its output when it has written.

One look each half second finds for all children how much they have written. A native thread looks,
as the disk may stand still.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog
from gevent import sleep, spawn, wait
from gevent.event import Event

from agent.process.child import ChildProcess, Ending
from agent.process.output import in_thread, size_of

# Seconds between two looks. A served test must be reported within a second.
LOOK = 0.5
# No test needs more, and a server that runs for months may write as much. It does not depend on
# the settings, and not on what a server has written to stdout.
MAX_STDERR_BYTES = 1024**2
FLOODED = "iperf3 wrote more than MAX_OUTPUT_BYTES and was stopped"
STDERR_FLOODED = "iperf3 wrote more than 1 MiB to stderr and was stopped"

log = structlog.get_logger()


def sizes_of(*children: ChildProcess) -> list[tuple[int, int]]:
    """How many bytes each has written to stdout and to stderr."""
    return in_thread(lambda: [(size_of(each.stdout), size_of(each.stderr)) for each in children])


class Sizes:
    """Wakes those that wait for a child's `has_grown`, until what it wrote has been `seen`."""

    def __init__(self) -> None:
        self._children = set[ChildProcess]()

    def add(self, child: ChildProcess) -> None:
        """Look at a child until it ends."""
        if not self._children:
            spawn(self._run)
        self._children.add(child)

    def _run(self) -> None:
        while self._children:
            sleep(LOOK)
            try:
                # There may be no room for a thread at the moment.
                with suppress(OSError):
                    children = list(self._children)
                    for child, sizes in zip(children, sizes_of(*children)):
                        child.sizes = sizes
                        if sizes != child.seen:
                            child.has_grown.set()
            except Exception:
                log.exception("a bug in the look at what children write: it is taken again")
            self._children = {each for each in self._children if not each.ended.is_set()}


_SIZES = Sizes()


@dataclass
class Watch:
    """The wait for a running child, until it ends or `stop` orders it to.

    `max_output_bytes` is for stdout; stderr has a limit of its own. `read` is called with the size
    of stdout when that has grown, at most twice a second, and at the end: to read it while the
    child runs. It says whether it has read all; if not, it is called again.
    """

    child: ChildProcess
    stop: Event
    max_output_bytes: int
    read: Callable[[int], bool] | None = None

    def wait(self, seconds: float) -> Ending:
        """Wait for the first of: the child's end, the order to stop, the time, too much output."""
        until, ending = time.monotonic() + seconds, None
        while not ending:
            ending = self.wait_once(until - time.monotonic())
        return ending

    def wait_once(self, seconds: float) -> Ending | None:
        """The same, but None as soon as the child has written and goes on.

        When the agent was held up, a child may have ended and be over its time as well: then it
        has ended.
        """
        child, stop = self.child, self.stop
        _SIZES.add(child)
        wait([child.ended, stop, child.has_grown], timeout=max(0.0, seconds), count=1)
        # Not the event: a hub that was held up handles the time-out before the child's end.
        ended = child.exit_code is not None
        if not (ended or stop.is_set() or child.has_grown.is_set()):
            return Ending.TIME
        sizes = None if ended or stop.is_set() else child.sizes
        child.has_grown.clear()
        child.seen = child.looks.take(partial(self._look, sizes))
        if child.flooded:
            return Ending.OUTPUT
        if ended:
            return Ending.ENDED
        return Ending.STOPPED if stop.is_set() else None

    def _look(self, sizes: tuple[int, int] | None) -> tuple[int, int] | None:
        """Find out whether it wrote too much, and read it; returns the sizes when all was read."""
        out, err = sizes or sizes_of(self.child)[0]
        if out > self.max_output_bytes:
            self.child.flooded = FLOODED
        elif err > MAX_STDERR_BYTES:
            self.child.flooded = STDERR_FLOODED
        elif self.read and not self.read(out):
            return None
        return out, err
