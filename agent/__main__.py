"""Starts the command `agent-run`, also as `python -m agent`: gevent patches first of all."""

import signal

# Python would print a traceback for Ctrl-C. Until the command is loaded, let it end the process.
_python_handler = signal.signal(signal.SIGINT, signal.SIG_DFL)

from gevent import events, monkey  # noqa: E402

# gevent (26.9) would search all installed packages for plugins at each of its 25 patching steps,
# which takes a twentieth of the start, and a quarter with the packages for tests installed.
events.notify_and_call_entry_points = lambda event: None
monkey.patch_all()

import ctypes  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402

import gevent  # noqa: E402
from gevent.hub import Hub  # noqa: E402

from agent.native_threads import NativeThreads, Resolver  # noqa: E402

# From malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_MMAP_THRESHOLD = 128 * 1024


def main() -> None:
    """Run the command and exit with its code."""
    if sys.platform == "win32":
        sys.exit("agent-run: Windows is not supported: use Linux, or macOS to try it")
    _prepare_process()
    try:
        from agent.cli.command import run

        # From here on there is something to clean up.
        signal.signal(signal.SIGINT, _python_handler)
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        # The code that a shell reports for a command ended by Ctrl-C.
        code = 128 + signal.SIGINT
    try:
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads it: keep Python from printing a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _prepare_process() -> None:
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
    gevent.config.threadpool, gevent.config.resolver = NativeThreads, Resolver
    # gevent would print a traceback if Ctrl-C came while it waits.
    Hub.NOT_ERROR += (KeyboardInterrupt,)  # type: ignore[assignment]


if __name__ == "__main__":
    main()
