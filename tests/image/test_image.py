"""The agent's image in a real container: its root read-only, its user nobody, no capability."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.image.conftest import IMAGE
from tests.support.container_engine import Container, Engine
from tests.support.harness import Bench, free_port, until

# The first test waits for the image as well.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

ORPHANS = 200
MAKE_ORPHANS = """
import subprocess
for _ in range(%d):
    subprocess.run(["sh", "-c", "sleep 0.05 &"], check=True)
"""
STATES = """
import glob
for name in glob.glob("/proc/[0-9]*/stat"):
    print(open(name).read().rpartition(")")[2].split()[0])
"""
FIND_PIP = "import importlib.util; print(importlib.util.find_spec('pip'))"


@contextmanager
def agent_in(engine: Engine, bench: Bench, **variables: str) -> Iterator[Container]:
    """The bench's agent a1 in a container, with a status page at a port that is free."""
    settings = {
        "MANAGER_URL": bench.manager.url,
        "AGENT_NAME": "a1",
        "AGENT_KEY": "key-1",
        "STATUS_ADDRESS": f"127.0.0.1:{free_port()}",
        **variables,
    }
    with engine.container(IMAGE, **settings) as container:
        yield container


def online(bench: Bench) -> None:
    """Wait until agent a1 has registered."""
    bench.wait(lambda: bench.store.agents.get(1).status == "online")


def states(container: Container) -> list[str]:
    """The state letter of each process in the container."""
    return container.run("python", "-c", STATES).split()


def test_it_measures_as_an_ordinary_user_and_writes_to_its_volume_alone(
    engine: Engine, bench: Bench
) -> None:
    """iperf3 finds a place for its buffers though neither / nor /tmp can be written."""
    with agent_in(engine, bench) as container:
        online(bench)
        port = free_port()
        server = bench.task("iperf_server_start", port=port)
        bench.wait(lambda: server.status == "succeeded")
        client = bench.ended(
            bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=1, parallel=2)
        )
        assert client.status == "succeeded", client.error
        assert bench.result(client)["end"]["sum_received"]["bits_per_second"] > 0
        status = container.run("cat", "/proc/self/status")
        assert "Uid:\t10001\t10001\t10001\t10001\n" in status
        assert "CapEff:\t0000000000000000\n" in status
        for place in ("/", "/tmp", "/var/tmp", "/opt/iperf-agent"):
            assert container.run("sh", "-c", f"test -w {place} || echo closed") == "closed\n"


def test_a_stop_ends_its_test_and_the_container_with_0(engine: Engine, bench: Bench) -> None:
    """STOPSIGNAL reaches the agent behind PID 1, which stops its child and delivers."""
    with agent_in(engine, bench) as container:
        online(bench)
        server = bench.task("iperf_server_start", port=(port := free_port()))
        bench.wait(lambda: server.status == "succeeded")
        client = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=60)
        bench.wait(lambda: client.status == "running")
        container.stop()
        assert container.exit_code() == 0
        assert client.status == "failed"
        assert '"message":"agent stopped"' in container.log()


def test_usr1_retires_it(engine: Engine, bench: Bench) -> None:
    """The signal for upgrades comes through too."""
    with agent_in(engine, bench) as container:
        online(bench)
        engine.podman("kill", "--signal=USR1", container.id)
        assert container.exit_code() == 0


def test_its_exit_code_is_the_agents(engine: Engine, bench: Bench) -> None:
    """77, which nobody should restart, does not become another code on its way out."""
    with agent_in(engine, bench, AGENT_KEY="not-its-key") as container:
        assert container.exit_code() == 77


def test_its_health_is_that_of_the_hub_and_not_of_the_manager(engine: Engine, bench: Bench) -> None:
    """A Manager that is away changes nothing; an agent that stands still is unhealthy."""
    with agent_in(engine, bench, HEARTBEAT_INTERVAL="0.5") as container:
        online(bench)
        assert container.is_healthy()
        bench.manager.stop()
        until(lambda: '"message":"no heartbeat; tests go on"' in container.log())
        assert container.is_healthy()
        agent = container.run("cat", "/proc/1/task/1/children").split()[0]
        container.run("sh", "-c", f"kill -STOP {agent}")
        assert not container.is_healthy()
        container.run("sh", "-c", f"kill -CONT {agent}")
        until(container.is_healthy)


def test_orphans_are_reaped(engine: Engine, bench: Bench) -> None:
    """What lost its parent is PID 1's, and PID 1 has to wait for it."""
    with agent_in(engine, bench) as container:
        online(bench)
        container.run("python", "-c", MAKE_ORPHANS % ORPHANS)
        # sh and sleep are gone: what is left are tini, the agent, and the one that looks.
        until(lambda: len(states(container)) == 3)


def test_the_image_is_what_engines_and_kubernetes_ask_for(engine: Engine, bench: Bench) -> None:
    """A numeric user, a signal, a volume; and nothing that builds."""
    inspected = json.loads(engine.podman("image", "inspect", IMAGE).output)[0]["Config"]
    assert inspected["User"] == "10001:10001"
    assert inspected["StopSignal"] in ("SIGTERM", "15")
    assert list(inspected["Volumes"]) == ["/var/lib/iperf-agent"]
    with agent_in(engine, bench) as container:
        for tool in ("gcc", "cc", "make", "git"):
            assert container.run("sh", "-c", f"command -v {tool} || echo none") == "none\n"
        assert "pip" not in container.run("ls", "/opt/iperf-agent/venv/bin")
        # The environment's Python, and the system's that it was made from.
        for python in ("sys.executable", "sys._base_executable"):
            path = container.run("python", "-c", f"import sys; print({python})").strip()
            assert container.run(path, "-c", FIND_PIP) == "None\n"
