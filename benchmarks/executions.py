"""Prints the moments at which a program is executed, in seconds since the epoch, a line for each.

    python -m benchmarks.executions PROGRAM

The kernel opens a program's file to execute it (inotify), and nobody else does so meanwhile. It is
a process of its own, as one that plays a Manager may just be busy, and goes before others where it
may. It ends when its stdin does.
"""

import ctypes
import os
import select
import sys
import time
from contextlib import suppress

_IN_OPEN = 0x20
_EVENT_BYTES = 4096


def main(program: str) -> None:
    """Watch until stdin is closed; an empty line says that it has begun."""
    libc = ctypes.CDLL(None, use_errno=True)
    inotify = libc.inotify_init1(os.O_CLOEXEC)
    path = os.path.realpath(program).encode()
    if inotify < 0 or libc.inotify_add_watch(inotify, path, _IN_OPEN) < 0:
        raise OSError(ctypes.get_errno(), "inotify does not watch", program)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    print(flush=True)
    while inotify in select.select([inotify, sys.stdin], [], [])[0]:
        moment = time.time()
        os.read(inotify, _EVENT_BYTES)
        print(moment, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
