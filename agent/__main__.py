"""The command `agent-run`, also as `python -m agent`: patches before anything else is imported."""

import signal

# Python would print where Ctrl-C has met it: until the command is loaded it ends the process.
_when_interrupted = signal.signal(signal.SIGINT, signal.SIG_DFL)

from gevent import events, monkey  # noqa: E402

# It would look for plugins in all installed packages at each of its 25 steps: a twentieth of the
# start, and a quarter where the packages for tests are installed as well (gevent 26.9).
events.notify_and_call_entry_points = lambda event: None
monkey.patch_all()

import ctypes  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402

from gevent.hub import Hub  # noqa: E402

# malloc.h
_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD = 128 * 1024


def main() -> None:
    """Run the command and exit with its code."""
    if sys.platform == "win32":
        sys.exit("agent-run: Windows is not supported; it runs on Linux, and on macOS for trying")
    _fill_standard_descriptors()
    _give_large_blocks_back()
    # gevent would print a traceback when Ctrl-C comes while it waits.
    Hub.NOT_ERROR += (KeyboardInterrupt,)  # type: ignore[assignment]
    try:
        from agent.cli.command import run

        # From here on there may be something to undo.
        signal.signal(signal.SIGINT, _when_interrupted)
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        # What a shell shows for a command that Ctrl-C ended.
        code = 128 + signal.SIGINT
    _let_go_of_stdout()
    sys.exit(code)


def _give_large_blocks_back() -> None:
    """Let glibc map blocks from 128 KiB on by themselves for good (mallopt(3), where there is one).

    By itself it puts them on the heap once the first was freed. Python's table of interned strings
    is renewed every few thousand tasks, and each time left a hole of a megabyte there.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)


def _let_go_of_stdout() -> None:
    """Write what is left; when its reader has gone, Python would print a traceback at the end."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fill_standard_descriptors() -> None:
    """Open what was closed of 0, 1 and 2, or the log would go into whichever file came next."""
    opened = 0
    while opened <= 2:
        opened = os.open(os.devnull, os.O_RDWR)
    os.close(opened)


if __name__ == "__main__":
    main()
