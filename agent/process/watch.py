"""The wait for a running child, with a look at its output when it has written."""

import time
from collections.abc import Callable
from functools import partial

import gevent
from gevent.event import Event

from agent.process.child import ChildProcess, Ending
from agent.process.sizes import Sizes, sizes_of

# No test needs more, and a server that runs for months may write as much. It does not depend on
# the settings, and not on what a server has written to stdout.
MAX_STDERR_BYTES = 1024**2
FLOODED = "iperf3 wrote more than MAX_OUTPUT_BYTES and was stopped"
STDERR_FLOODED = "iperf3 wrote more than 1 MiB to stderr and was stopped"

_SIZES = Sizes()


def watch(
    child: ChildProcess,
    stop: Event,
    seconds: float,
    max_output_bytes: int,
    read: Callable[[int], bool] | None = None,
) -> Ending:
    """Wait for the first of: the child's end, the order to stop, the time, too much output.

    Otherwise as `watch_once`.
    """
    until, ending = time.monotonic() + seconds, None
    while not ending:
        ending = watch_once(child, stop, until - time.monotonic(), max_output_bytes, read)
    return ending


def watch_once(
    child: ChildProcess,
    stop: Event,
    seconds: float,
    max_output_bytes: int,
    read: Callable[[int], bool] | None = None,
) -> Ending | None:
    """The same, but None as soon as the child has written and goes on.

    `max_output_bytes` is for stdout; stderr has a limit of its own. `read` is called with the size
    of stdout when that has grown, at most twice a second, and at the end: to read it while the
    child runs. It says whether it has read all; if not, it is called again. When the agent was held
    up, a child may have ended and be over its time as well: then it has ended.
    """
    _SIZES.add(child)
    gevent.wait([child.ended, stop, child.has_grown], timeout=max(0.0, seconds), count=1)
    # Not the event: a hub that was held up handles the time-out before the child's end.
    ended = child.exit_code is not None
    if not (ended or stop.is_set() or child.has_grown.is_set()):
        return Ending.TIME
    sizes = None if ended or stop.is_set() else child.sizes
    child.has_grown.clear()
    child.seen = child.looks.take(partial(_look, child, sizes, max_output_bytes, read))
    if child.flooded:
        return Ending.OUTPUT
    if ended:
        return Ending.ENDED
    return Ending.STOPPED if stop.is_set() else None


def _look(
    child: ChildProcess,
    sizes: tuple[int, int] | None,
    max_output_bytes: int,
    read: Callable[[int], bool] | None,
) -> tuple[int, int] | None:
    """Find out whether it wrote too much, and read it; returns the sizes when all was read."""
    out, err = sizes or sizes_of(child)[0]
    if out > max_output_bytes:
        child.flooded = FLOODED
    elif err > MAX_STDERR_BYTES:
        child.flooded = STDERR_FLOODED
    elif read and not read(out):
        return None
    return out, err
