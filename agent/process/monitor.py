"""Watching over a child: until it ends, must end, has had its time, or wrote too much."""

import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import gevent
from gevent.event import Event

from agent.process.child import ChildProcess

# Seconds between two looks at the size of a child's output.
OUTPUT_LOOK = 1.0


class Ending(Enum):
    """Why the watch over a child came to its end."""

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

    `look` is called about once a second and at the end, for whoever reads the output along.

    A child that has ended by then has ended, also when the agent stood still meanwhile and its
    time is over as well. The limit is for stdout and for stderr, each by itself.
    """
    until = time.monotonic() + seconds
    while True:
        left = until - time.monotonic()
        gevent.wait([child.ended, stop], timeout=max(0.0, min(OUTPUT_LOOK, left)), count=1)
        # Not `ended`: when the hub was held up, the time-out is noticed before the child's end.
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


def size_of(path: Path) -> int:
    """A file's size in bytes; 0 for one that somebody has removed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
