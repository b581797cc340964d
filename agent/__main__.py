"""The command `agent-run`, also as `python -m agent`: patches before anything else is imported."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402


def main() -> None:
    """Run the command and exit with its code."""
    if sys.platform == "win32":
        sys.exit("agent-run: Windows is not supported; it runs on Linux, and on macOS for trying")
    from agent.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
