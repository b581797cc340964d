"""A name server that is silent: it holds up the test that asks it, and nothing else."""

import os
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.harness import AgentProcess, Bench
from tests.support.needs import need

need(os.geteuid() == 0, "a name server of its own needs root")

SILENT = "127.0.0.53"
NAMES = 30
HEARTBEAT = 0.5
# Three times what a heartbeat may be late, and nothing beside the 10 s of one lookup.
LATE = 1.5


@pytest.fixture(name="agent")
def fixture_agent(bench: Bench) -> Iterator[AgentProcess]:
    """An agent that asks a silent name server, for the Manager's name too but for the hosts file.

    Each heartbeat needs a connection of its own, and with it the name.
    """
    configuration = bench.directory / "resolv.conf"
    configuration.write_text(f"nameserver {SILENT}\n")
    bind = f"mount --bind {configuration} /etc/resolv.conf && exec {sys.executable} -m agent"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((SILENT, 53))
        agent = bench.agent(
            program=("unshare", "--mount", "sh", "-c", bind),
            MANAGER_URL=bench.manager.url.replace("127.0.0.1", "localhost"),
            ALLOWED_TARGETS="10.0.0.0/8",
            HEARTBEAT_INTERVAL=f"{HEARTBEAT}",
        )
        agent.wait_for("registered")
        yield agent
        agent.close()


def seconds_to_a_heartbeat(bench: Bench) -> float:
    """How long the next one took to come."""
    before, began = bench.store.agents.get(1).last_heartbeat, time.monotonic()
    bench.wait(lambda: bench.store.agents.get(1).last_heartbeat != before)
    return time.monotonic() - began


def test_names_of_tests_that_nobody_resolves_hold_up_no_heartbeat_and_no_kill_all(
    bench: Bench, agent: AgentProcess
) -> None:
    tasks = [
        bench.task("iperf_client_run", server_ip=f"host{number}.example.com", port=1)
        for number in range(NAMES)
    ]
    for task in tasks:
        agent.wait_for("task claimed", task_id=task.id)
    longest = max(seconds_to_a_heartbeat(bench) for _ in range(8))
    began = time.monotonic()
    killed = bench.ended(bench.task("kill_all"))
    took = time.monotonic() - began
    print(f"heartbeats at most {longest:.2f} s apart; kill_all took {took:.2f} s")
    assert longest < HEARTBEAT + LATE
    assert bench.result(killed)["count"] == NAMES and took < LATE
    # Their outcomes were in the outbox by then, and may arrive behind that of the kill_all.
    assert {bench.ended(task).error for task in tasks} == {
        "stopped by kill_all before the test began"
    }
