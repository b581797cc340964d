"""Starts the command `agent-run`, also as `python -m agent`: gevent patches first of all."""

import signal

# Python would print a traceback for Ctrl-C. Until the command is loaded, let it end the process.
_python_handler = signal.signal(signal.SIGINT, signal.SIG_DFL)

from gevent import events, monkey  # noqa: E402

# gevent (26.9) would search all installed packages for plugins at each of its 25 patching steps,
# which takes a twentieth of the start, and a quarter with the packages for tests installed.
events.notify_and_call_entry_points = lambda event: None
monkey.patch_all()

import sys  # noqa: E402

from agent.cli import startup  # noqa: E402


def main() -> None:
    """Run the command and exit with its code."""
    if sys.platform == "win32":
        sys.exit("agent-run: Windows is not supported: use Linux, or macOS to try it")
    startup.prepare_process()
    try:
        from agent.cli.command import run

        # From here on there is something to clean up.
        signal.signal(signal.SIGINT, _python_handler)
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        # The code that a shell reports for a command ended by Ctrl-C.
        code = 128 + signal.SIGINT
    startup.flush_stdout()
    sys.exit(code)


if __name__ == "__main__":
    main()
