"""What the kernel knows: when a program is executed, when a process ends, what it costs."""

import os
import select
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean

import gevent
from gevent import subprocess
from gevent.event import AsyncResult
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool

from benchmarks.figures import PARTS, Range, spread

# linux/posix-timers.h: the clock of another process has the complement of its id above three bits.
_CPUCLOCK_SCHED = 2
# Seconds between two looks at a process's memory.
PEAK_LOOK = 0.003


def in_thread(function: Callable[[], object]) -> AsyncResult:
    """Let a native thread run what blocks; `get()` of what is returned waits for it."""
    result: AsyncResult = ThreadPool(1).spawn(function)
    return result


class Executions:
    """The `moments` at which a program is executed, noted by a process of its own."""

    def __init__(self, program: str) -> None:
        self.moments: list[float] = []
        argv = [sys.executable, "-m", "benchmarks.executions", program]
        self._watcher = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        lines = self._watcher.stdout
        assert lines
        lines.readline()
        gevent.spawn(self._read, lines)

    def _read(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self.moments.append(float(line))


def end_of(pid: int) -> AsyncResult:
    """The moment at which a process will have ended, in seconds since the epoch."""
    pidfd = os.pidfd_open(pid)

    def wait() -> float:
        poller = get_original("select", "poll")()
        poller.register(pidfd, select.POLLIN)
        poller.poll()
        ended = time.time()
        os.close(pidfd)
        return ended

    return in_thread(wait)


def rates(seconds: float, *readings: Callable[[], float]) -> list[Range]:
    """How much each reading rises a second during the next so many seconds."""
    found: list[list[float]] = []
    for _ in range(PARTS):
        began, before = time.monotonic(), [read() for read in readings]
        gevent.sleep(seconds / PARTS)
        passed = time.monotonic() - began
        found.append([(read() - first) / passed for read, first in zip(readings, before)])
    return [spread(values, fmean) for values in zip(*found)]


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has had, to the nanosecond, with its ended threads."""
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def wake_ups(pid: int) -> int:
    """How often the threads of a process have waited for something, and then had it."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(_field(task / "status", "voluntary_ctxt_switches") for task in tasks)


def memory(pid: int, name: str) -> int:
    """A line of /proc/PID/status in bytes, as VmRSS or RssAnon."""
    return _field(Path(f"/proc/{pid}/status"), name) * 1024


class Peak:
    """Watches a line of /proc/PID/status from a native thread while its block runs, in bytes."""

    def __init__(self, pid: int, name: str) -> None:
        self._pid, self._name = pid, name
        self._over = False
        self.first = self.highest = memory(pid, name)

    def __enter__(self) -> "Peak":
        self._watching = in_thread(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._watching.get()

    def _watch(self) -> None:
        sleep = get_original("time", "sleep")
        while not self._over:
            self.highest = max(self.highest, memory(self._pid, self._name))
            sleep(PEAK_LOOK)


def _field(status: Path, name: str) -> int:
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
