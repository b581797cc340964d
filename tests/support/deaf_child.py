"""An agent with a child that has to be killed."""

from typing import Any

from agent.dev.store.records import ManagedTask
from tests.support.command import stand_in
from tests.support.harness import AgentProcess, Bench, until


def with_a_deaf_child(bench: Bench, **variables: Any) -> tuple[AgentProcess, ManagedTask, int]:
    """An agent at work on a task whose child ignores TERM, that task, and the child's pid."""
    deaf = bench.directory / "deaf"
    path = stand_in(bench.directory / "iperf3", f"trap '' TERM; : >{deaf}; exec sleep 60")
    agent = bench.agent(IPERF3_PATH=path, **variables)
    task = bench.task("iperf_client_run", server_ip="127.0.0.1", port=5201, time=60)
    until(deaf.exists)
    return agent, task, agent.wait_for("client started")["pid"]
