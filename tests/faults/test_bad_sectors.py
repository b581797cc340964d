"""A sector of the agent's disk that cannot be read: its task fails, and the agent goes on."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import subprocess

from agent.dev.store.records import ManagedTask
from agent.tasks.server import LOST
from tests.support.bad_sectors import BLOCK, BadDisk
from tests.support.command import stand_in
from tests.support.harness import AgentProcess, Bench, free_port, iperf3_server, until
from tests.support.needs import need
from tests.support.newer_iperf3 import newer_iperf3
from tests.support.recorded_runs import run

need(sys.platform == "linux", "a disk with bad sectors needs Linux")
pytestmark = pytest.mark.timeout(120)

# Enough streams for a document of several blocks.
WIDE = {"parallel": 16, "bitrate": 1_000_000}


@pytest.fixture(name="children")
def fixture_children(bad_disk: BadDisk, bench: Bench) -> Iterator[Path]:
    """Where an agent's children write, on that disk; the agent is gone before it is unmounted."""
    yield bad_disk.path / "state" / "children"
    bench.close()


def agent_on(children: Path, bench: Bench, **variables: Any) -> AgentProcess:
    """An agent that keeps its state there, registered."""
    agent = bench.agent(
        STATE_DIR=str(children.parent), HEARTBEAT_INTERVAL="0.2", STOP_GRACE="1", **variables
    )
    agent.wait_for("registered")
    return agent


def client(bench: Bench, port: int, **payload: Any) -> ManagedTask:
    given: dict[str, Any] = {"server_ip": "127.0.0.1", "port": port, "time": 1, **WIDE, **payload}
    return bench.task("iperf_client_run", **given)


def written(children: Path, task: ManagedTask, suffix: str, blocks: int) -> Path:
    """What the task's child has written by now, once it is so long."""

    def found() -> list[Path]:
        files = children.glob(f"{task.id}.*{suffix}")
        return [file for file in files if file.stat().st_size > blocks * BLOCK]

    until(found)
    return found()[0]


def test_the_document_of_a_test_that_ends(
    bad_disk: BadDisk, children: Path, bench: Bench, tmp_path: Path
) -> None:
    document, go = tmp_path / "document", tmp_path / "go"
    document.write_bytes(run("3.12", "tcp").stdout)
    waits = f'cat "{document}"; until [ -e "{go}" ]; do sleep 0.05; done'
    agent = agent_on(children, bench, IPERF3_PATH=stand_in(tmp_path / "iperf3", waits))
    task = client(bench, free_port(), time=10)
    bad_disk.spoil(written(children, task, ".json", blocks=0))
    go.touch()
    assert bench.ended(task).status == "failed"
    assert bench.result(task)["agent"]["error_class"] == "host_error"
    assert task.error and "Input/output error" in task.error
    bench.ends_well(agent)


def test_the_stream_of_a_running_test(bad_disk: BadDisk, children: Path, bench: Bench) -> None:
    agent = agent_on(children, bench, IPERF3_PATH=newer_iperf3("trixie"))
    with iperf3_server(port := free_port()):
        task = client(bench, port, time=3, interval=0.1)
        bad_disk.spoil(written(children, task, ".stream", blocks=2), 0)
        assert bench.ended(task).status == "failed"
    assert bench.result(task)["agent"]["error_class"] == "host_error"
    assert task.error and "Input/output error" in task.error
    bench.ends_well(agent)


def served(port: int) -> None:
    """Another program's test with the agent's server, whose document has several blocks."""
    argv = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", "1", "-P", "16", "-b", "1M"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)  # type: ignore[attr-defined]


def test_the_output_of_a_running_server(bad_disk: BadDisk, children: Path, bench: Bench) -> None:
    agent = agent_on(children, bench)
    server = bench.ended(bench.task("iperf_server_start", port=(port := free_port())))
    agent.signal(signal.SIGSTOP)
    served(port)
    # The last block is not to be lost: the server goes on in it.
    bad_disk.spoil(written(children, server, ".json", blocks=2), 0)
    agent.signal(signal.SIGCONT)
    agent.wait_for("the document of a served test cannot be kept", task_id=server.id)
    served(port)
    bench.wait(lambda: b'"sum_received"' in bytes(server.result))
    assert bench.ended(bench.task("kill_all")).status == "succeeded"
    bench.wait(lambda: b'"ended"' in bytes(server.result))
    assert bench.result(server)["agent"]["warnings"] == [LOST]
    assert server.status == "succeeded"
    bench.ends_well(agent)


@pytest.mark.parametrize("kind", ["client", "server"])
def test_the_output_that_a_killed_agent_has_left(
    bad_disk: BadDisk, children: Path, bench: Bench, kind: str
) -> None:
    agent = agent_on(children, bench)
    port = free_port()
    if kind == "client":
        with iperf3_server(port):
            task = client(bench, port, time=60)
            agent.wait_for("client started", task_id=task.id)
            bench.wait(lambda: task.status == "running")
            agent.signal(signal.SIGKILL)
            agent.exit_code()
            # iperf3 has written nothing by then.
            left = written(children, task, ".json", blocks=-1)
            left.write_bytes(run("3.12", "tcp").stdout)
    else:
        task = bench.ended(bench.task("iperf_server_start", port=port))
        agent.signal(signal.SIGSTOP)
        served(port)
        left = written(children, task, ".json", blocks=2)
        agent.signal(signal.SIGKILL)
        agent.exit_code()
    bad_disk.spoil(left)
    agent = agent_on(children, bench)
    if kind == "client":
        assert bench.ended(task).error == "interrupted: the agent restarted"
    bench.wait(lambda: b"interrupted" in bytes(task.result))
    bench.ends_well(agent)
