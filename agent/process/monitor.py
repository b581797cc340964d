"""Waiting for a child: until it ends or must be ended."""

import time
from collections.abc import Callable
from enum import Enum

import gevent
from gevent.event import Event

from agent.process.child import ChildProcess
from agent.process.output import size_of

# Seconds between two looks at a child's output.
OUTPUT_LOOK = 1.0


class Ending(Enum):
    """Why the wait for a child is over."""

    ENDED = "it ended by itself"
    STOPPED = "the agent stopped it"
    TIME = "its time is over"
    OUTPUT = "it wrote too much"


FLOODED = "iperf3 wrote more than MAX_OUTPUT_BYTES and was stopped"


def watch(
    child: ChildProcess,
    stop: Event,
    seconds: float,
    max_output_bytes: int,
    look: Callable[[], None] | None = None,
) -> Ending:
    """Wait for the first of: the child's end, the order to stop, the time, too much output.

    The limit applies to stdout and to stderr separately. `look` is called about once a second
    and at the end, to read the output while the child runs. When the agent was held up, a child
    may have ended and be over its time as well: then it has ended.
    """
    until = time.monotonic() + seconds
    while True:
        left = until - time.monotonic()
        gevent.wait([child.ended, stop], timeout=max(0.0, min(OUTPUT_LOOK, left)), count=1)
        # Not the event: a hub that was held up handles the time-out before the child's end.
        ended = child.exit_code is not None
        if look:
            look()
        if max(map(size_of, (child.stdout, child.stderr))) > max_output_bytes:
            return Ending.OUTPUT
        if ended:
            return Ending.ENDED
        if stop.is_set():
            return Ending.STOPPED
        if left <= OUTPUT_LOOK:
            return Ending.TIME
