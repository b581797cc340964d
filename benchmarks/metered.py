"""The agent with a meter: `python -m benchmarks.metered FILE [OPTION ...]`.

Beside the agent itself a timer rings every 10 ms. FILE gets a line for each time and for each
heartbeat: which of the two, the moment in seconds since the epoch, how many seconds late it was.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TextIO  # noqa: E402

import gevent  # noqa: E402
from gevent.event import Event  # noqa: E402

from agent import timing  # noqa: E402
from agent.cli import command  # noqa: E402
from agent.service import heartbeat  # noqa: E402
from benchmarks.lean import lean_agent  # noqa: E402

EVERY = 0.01


def metered_agent(file: Path) -> tuple[str, ...]:
    """The command that runs it."""
    return (lean_agent()[0], "-m", "benchmarks.metered", str(file))


class Meter:
    """Writes the lines."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def hub(self) -> None:
        """Note how late the hub is, for ever."""
        while True:
            due = time.monotonic() + EVERY
            gevent.sleep(EVERY)
            self._note("hub", time.monotonic() - due)

    def ticks(self, interval: float, stop: Event) -> Iterator[float]:
        """The ticks of the heartbeat loop, noted on their way."""
        for late in timing.ticks(interval, stop):
            self._note("heartbeat", late)
            yield late

    def _note(self, what: str, late: float) -> None:
        self._file.write(f"{what} {time.time():.6f} {max(0.0, late):.6f}\n")


def noted(file: Path, what: str, since: float) -> list[float]:
    """What was noted since a moment, in milliseconds."""
    rows = [line.split() for line in file.read_text().splitlines()[:-1]]
    return [float(late) * 1000 for kind, at, late in rows if kind == what and float(at) >= since]


def main(file: str, *options: str) -> int:
    """Run the agent with these options; returns its exit code."""
    with open(file, "w", encoding="ascii", buffering=1) as lines:
        meter = Meter(lines)
        setattr(heartbeat, "ticks", meter.ticks)
        gevent.spawn(meter.hub)
        return command.run(list(options))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
