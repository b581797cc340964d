"""The command as a process that ends by itself, its stdout and stderr apart."""

import sys
from dataclasses import dataclass
from pathlib import Path

from gevent import subprocess

from tests.support.harness import PATIENCE, ROOT, environment

MODULE = ("-m", "agent")
LAUNCHER = (str(ROOT / "agent.py"),)
# Nobody listens on TCP port 1 of this host.
NO_MANAGER = "http://127.0.0.1:1"


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    output: str
    errors: str


def run(*arguments: str, cwd: Path, **variables: str) -> Ended:
    """Run the command with these variables in its environment, and wait for its end."""
    return run_program(sys.executable, *MODULE, *arguments, cwd=cwd, **variables)


def run_program(*argv: str, cwd: Path, **variables: str) -> Ended:
    """The same with another program."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,  # type: ignore[attr-defined]
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def stand_in(path: Path, behaviour: str) -> str:
    """A program that says it is the installed iperf3, and then does as the shell lines say."""
    path.write_text(f"""#!/bin/sh
case "$1" in --version|--help) exec iperf3 "$1";; esac
{behaviour}
""")
    path.chmod(0o755)
    return str(path)
