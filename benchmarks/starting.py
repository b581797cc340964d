"""How soon a program is executed, by each way to start it, in a process as large as the agent.

    python -m benchmarks.starting posix_spawn|fork|gevent.subprocess

Prints the milliseconds from the call to the execve as JSON. Between two starts it is idle for a
moment, as an agent is before a task.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import gevent  # noqa: E402
import msgspec  # noqa: E402
from gevent import subprocess  # noqa: E402
from gevent.monkey import get_original  # noqa: E402

# As much memory as an agent has, which a fork has to copy the tables of.
import agent.service.lifecycle  # noqa: E402, F401
from benchmarks.host import Executions  # noqa: E402

TIMES = 40
PAUSE = 0.25
PROGRAM = shutil.which("iperf3") or "iperf3"
ARGV = [PROGRAM, "--version"]


def by_posix_spawn() -> None:
    """With as little as the system asks for."""
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    # gevent's own would wait for ever for a child that ends before it begins to watch it.
    pid = get_original("os", "posix_spawn")(PROGRAM, ARGV, os.environ, file_actions=null)
    get_original("os", "waitpid")(pid, 0)


def by_fork() -> None:
    """With a fork that does nothing else."""
    pid = get_original("os", "fork")()
    if pid == 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        try:
            os.execv(PROGRAM, ARGV)
        finally:
            os._exit(127)
    os.waitpid(pid, 0)


def by_gevent() -> None:
    """As the agent does it, but for its own demands on a child."""
    subprocess.run(ARGV, stdout=subprocess.DEVNULL, check=True)  # type: ignore[attr-defined]


WAYS: dict[str, Callable[[], None]] = {
    "posix_spawn": by_posix_spawn,
    "fork": by_fork,
    "gevent.subprocess": by_gevent,
}


def main(way: str) -> None:
    """Start the program TIMES times and print how long each took."""
    programs = Executions(PROGRAM)
    found = []
    for _ in range(TIMES):
        gevent.sleep(PAUSE)
        began, seen = time.time(), len(programs.moments)
        WAYS[way]()
        # The thread that notes the moment may come a moment later.
        while len(programs.moments) == seen:
            gevent.sleep(0.001)
        found.append((programs.moments[seen] - began) * 1000)
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main(sys.argv[1])
