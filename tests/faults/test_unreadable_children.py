"""Files of iperf3 that cannot be opened, looked at or read: the agent and its tasks go on."""

import errno
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import subprocess

from agent.tasks.recovery import INTERRUPTED
from tests.support.faulty_disk import POSSIBLE, FaultyDisk
from tests.support.harness import AgentProcess, Bench, free_port, iperf3_server
from tests.support.needs import need

need(POSSIBLE, "a disk that fails on demand needs Linux and gcc")
pytestmark = pytest.mark.timeout(120)

FAULTS = [
    ("open", errno.EACCES),
    ("open", errno.ELOOP),
    ("stat", errno.ESTALE),
    ("stat", errno.EIO),
    ("read", errno.EIO),
]


@pytest.fixture(name="disk")
def fixture_disk(tmp_path: Path) -> FaultyDisk:
    """A disk that fails as a test says."""
    return FaultyDisk(tmp_path / "faults")


@pytest.fixture(name="agent")
def fixture_agent(disk: FaultyDisk, bench: Bench) -> Iterator[AgentProcess]:
    """An agent on that disk, registered."""
    yield started(disk, bench)


def started(disk: FaultyDisk, bench: Bench) -> AgentProcess:
    variables: dict[str, Any] = disk.variables
    agent = bench.agent(HEARTBEAT_INTERVAL="0.2", STOP_GRACE="1", **variables)
    agent.wait_for("registered")
    return agent


def served(port: int) -> None:
    """Another program's test with the agent's server."""
    argv = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-n", "1000"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)  # type: ignore[attr-defined]


@pytest.mark.parametrize("call, number", FAULTS)
def test_a_running_agent(
    disk: FaultyDisk, bench: Bench, agent: AgentProcess, call: str, number: int
) -> None:
    server = bench.ended(bench.task("iperf_server_start", port=(port := free_port())))
    with iperf3_server(other := free_port()):
        payload: dict[str, Any] = {
            "server_ip": "127.0.0.1",
            "port": other,
            "time": 2,
            "bitrate": 1_000_000,
        }
        test = bench.task("iperf_client_run", **payload)
        agent.wait_for("client started", task_id=test.id)
        disk.fail(call, "*/children/*", number)
        served(port)
        bench.ended(test)
    report = bench.result(test)["agent"]
    assert report.get("error_class") in (None, "host_error"), test.error
    assert test.status == ("failed" if "error_class" in report else "succeeded")
    assert disk.met()
    disk.lift()
    assert bench.ended(bench.task("kill_all")).status == "succeeded"
    bench.wait(lambda: b'"ended"' in bytes(server.result))
    assert server.status == "succeeded"
    bench.ends_well(agent)


@pytest.mark.parametrize("call, number", FAULTS)
def test_the_next_run_of_a_killed_agent(
    disk: FaultyDisk, bench: Bench, agent: AgentProcess, call: str, number: int
) -> None:
    server = bench.ended(bench.task("iperf_server_start", port=(port := free_port())))
    test = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=60)
    agent.wait_for("client started", task_id=test.id)
    bench.wait(lambda: test.status == "running")
    agent.signal(signal.SIGKILL)
    agent.exit_code()
    disk.fail(call, "*/children/*", number)
    agent = started(disk, bench)
    assert bench.ended(test).error == INTERRUPTED
    bench.wait(lambda: INTERRUPTED.encode() in bytes(server.result))
    assert server.status == "succeeded"
    disk.lift()
    bench.ends_well(agent)
