"""The wait for a running child, with a look at its output about once a second."""

import time
from collections.abc import Callable
from functools import partial

import gevent
from gevent.event import Event

from agent.process.child import ChildProcess, Ending
from agent.process.output import in_thread, size_of

# No test needs more, and a server that runs for months may write as much. It does not depend on
# the settings, and not on what a server has written to stdout.
MAX_STDERR_BYTES = 1024**2
# Seconds between two looks at a child's output.
OUTPUT_LOOK = 1.0
FLOODED = "iperf3 wrote more than MAX_OUTPUT_BYTES and was stopped"
STDERR_FLOODED = "iperf3 wrote more than 1 MiB to stderr and was stopped"


def watch(
    child: ChildProcess,
    stop: Event,
    seconds: float,
    max_output_bytes: int,
    read: Callable[[int], None] | None = None,
) -> Ending:
    """Wait for the first of: the child's end, the order to stop, the time, too much output.

    `max_output_bytes` is for stdout; stderr has a limit of its own. `read` is called about once a
    second and at the end with the size of stdout, to read that while the child runs. When the agent
    was held up, a child may have ended and be over its time as well: then it has ended.
    """
    until = time.monotonic() + seconds
    while True:
        left = until - time.monotonic()
        gevent.wait([child.ended, stop], timeout=max(0.0, min(OUTPUT_LOOK, left)), count=1)
        # Not the event: a hub that was held up handles the time-out before the child's end.
        ended = child.exit_code is not None
        child.looks.take(partial(_look, child, max_output_bytes, read))
        if child.flooded:
            return Ending.OUTPUT
        if ended:
            return Ending.ENDED
        if stop.is_set():
            return Ending.STOPPED
        if left <= OUTPUT_LOOK:
            return Ending.TIME


def _look(child: ChildProcess, max_output_bytes: int, read: Callable[[int], None] | None) -> None:
    """Find out whether it wrote too much; if it did not, `read` is given the size of stdout."""
    out, err = in_thread(lambda: (size_of(child.stdout), size_of(child.stderr)))
    if out > max_output_bytes:
        child.flooded = FLOODED
    elif err > MAX_STDERR_BYTES:
        child.flooded = STDERR_FLOODED
    elif read:
        read(out)
