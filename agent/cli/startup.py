"""What the process needs before the command is loaded, and at its end."""

import ctypes
import os
import sys

import gevent
from gevent.hub import Hub

from agent.native_threads import Threads

# From malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_MMAP_THRESHOLD = 128 * 1024


def prepare_process() -> None:
    """Set up descriptors, memory and gevent for the whole life of the process."""
    # Where 0, 1 or 2 are closed, the log must not go into the next opened file.
    opened = 0
    while opened <= 2:
        opened = os.open(os.devnull, os.O_RDWR)
    os.close(opened)
    # Make glibc return each freed block of 128 KiB or more to the system, now and later. By default
    # it raises that limit when such a block is freed. Each time Python then renewed its table of
    # interned strings, every few thousand tasks, a hole of a megabyte stayed in the heap. Other C
    # libraries have no mallopt(3).
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        # An arena for each native thread would keep what its work once needed: 2 MiB in 400 s.
        mallopt(_M_ARENA_MAX, 1)
    # In the threads of gevent's own pool names are looked up.
    gevent.config.threadpool = Threads
    # gevent would print a traceback if Ctrl-C came while it waits.
    Hub.NOT_ERROR += (KeyboardInterrupt,)  # type: ignore[assignment]


def flush_stdout() -> None:
    """Write what is buffered. If nobody reads it, keep Python from printing a traceback."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
