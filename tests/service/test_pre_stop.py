"""The preStop command of the manifests, run beside a real agent that is process 1, as in a pod."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gevent import subprocess

from tests.support.deployment_files import DEPLOYMENT, manifest
from tests.support.harness import AGENT, AgentProcess, Bench, free_port, iperf3_server

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a PID namespace")

BASE = DEPLOYMENT / "kubernetes" / "base" / "daemonset.yaml"
# Like a container: the agent is process 1, and all others end with it.
AS_FIRST = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *AGENT)
HookStarter = Callable[..., subprocess.Popen]


@pytest.fixture(name="hook")
def fixture_hook() -> Iterator[HookStarter]:
    """Starts the hook beside an agent, as the kubelet does: `kubectl exec` is the same."""
    started: list[subprocess.Popen] = []

    def start(agent: AgentProcess, seconds: str = "") -> subprocess.Popen:
        spec = manifest(BASE)["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        command = container["lifecycle"]["preStop"]["exec"]["command"]
        if seconds:
            command = [seconds if word == "600" else word for word in command]
        namespace = f"--pid=/proc/{agent.pid}/ns/pid_for_children"
        started.append(subprocess.Popen(["nsenter", namespace, "--", *command]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_an_idle_agent_is_not_waited_for(bench: Bench, hook: HookStarter) -> None:
    agent = bench.agent(program=AS_FIRST)
    agent.wait_for("registered")
    started = hook(agent)
    assert agent.exit_code() == 0
    started.wait(timeout=30)
    assert [line["why"] for line in agent.lines if line["message"] == "agent stops"] == ["SIGUSR1"]


def test_an_agent_with_a_server_is_not_waited_for(bench: Bench, hook: HookStarter) -> None:
    agent = bench.agent(program=AS_FIRST)
    task = bench.ended(bench.task("iperf_server_start", port=free_port()))
    started = hook(agent)
    assert agent.exit_code() == 0
    started.wait(timeout=30)
    assert bench.result(task)["agent"]["ended"] == "the agent was stopped (SIGUSR1)"


def test_a_test_that_runs_is_waited_for(bench: Bench, hook: HookStarter) -> None:
    agent = bench.agent(program=AS_FIRST)
    with iperf3_server(port := free_port()):
        task = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=4)
        bench.wait(lambda: task.status == "running")
        started = hook(agent)
        agent.wait_for("agent retires", clients=1)
        assert started.poll() is None and task.finished_at is None
        assert agent.exit_code() == 0
        started.wait(timeout=30)
    assert task.status == "succeeded", task.error
    assert bench.result(task)["end"]["sum_sent"]["seconds"] > 3.7, "it was not cut short"


def test_a_longer_test_is_cut_short_by_the_signal_that_follows(
    bench: Bench, hook: HookStarter
) -> None:
    agent = bench.agent(program=AS_FIRST)
    with iperf3_server(port := free_port()):
        task = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=600)
        bench.wait(lambda: task.status == "running")
        assert hook(agent, "2").wait(timeout=30) == 124, "timeout has ended it"
        assert task.finished_at is None
        os.kill(first_of(agent), signal.SIGTERM)
        assert agent.exit_code() == 0
    assert bench.result(task)["agent"]["error_class"] == "interrupted"


def first_of(agent: AgentProcess) -> int:
    """The process id, here, of process 1 in the agent's namespace."""
    (child,) = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    return int(child)
