"""An agent process that takes a short silence of its Manager for a long one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.harness import AgentProcess
from tests.support.lone_agent import lone_agent

# Seconds of silence after which it registers again; the real agent has 15 s.
SILENCE = 1.0
_PROGRAM = f"""
import os
import agent.__main__ as command
from agent import host
from agent.manager import registration
registration.SILENCE = {SILENCE}
if "ROUTE_IN" in os.environ:
    host.local_address = lambda url: open(os.environ["ROUTE_IN"]).read()
command.main()
"""


@contextmanager
def impatient_agent(
    url: str, directory: Path, route_in: Path | None = None
) -> Iterator[AgentProcess]:
    """Agent a1, as `lone_agent` starts it, but for its patience.

    `route_in` is a file with the local address of its route to the Manager.
    """
    route = {"ROUTE_IN": str(route_in)} if route_in else {}
    program = (sys.executable, "-c", _PROGRAM)
    with lone_agent(url, directory, program=program, **route) as agent:
        yield agent
