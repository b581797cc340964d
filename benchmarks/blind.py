"""The agent without its observation of tests: `python -m benchmarks.blind [OPTION ...]`."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from agent.cli import command  # noqa: E402
from agent.diagnosis.observer import Observer  # noqa: E402
from benchmarks.lean import lean_agent  # noqa: E402


def blind_agent() -> tuple[str, ...]:
    """The command that runs it."""
    return (lean_agent()[0], "-m", "benchmarks.blind")


def look(observer: Observer) -> None:
    """See nothing, and look again in a second."""
    observer.wait = 1.0


def main(*options: str) -> int:
    """Run the agent with these options; returns its exit code."""
    setattr(Observer, "look", look)
    return command.run(list(options))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
