"""How an agent ends: what it still claims, stops and delivers, and how long that may take."""

import signal
import time
from pathlib import Path
from typing import Any

import gevent
import pytest

from agent.config.key import Key
from agent.config.settings import read_settings
from agent.dev.store.records import ManagedTask
from agent.errors import Crashed
from agent.service.lifecycle import Agent
from agent.service.signals import StopSignals
from tests.support.command import stand_in
from tests.support.faulty_manager import Request, reply, well
from tests.support.harness import AgentProcess, Bench, free_port, is_running, until
from tests.support.lone_agent import lone_agent, passed_on
from tests.support.sockets import MakeManager

TEST: dict[str, Any] = {"server_ip": "127.0.0.1", "port": 5201, "time": 60}


def seconds_to_end(agent: AgentProcess) -> float:
    """How long the agent takes from now until it has ended with 0."""
    began = time.monotonic()
    assert agent.exit_code() == 0
    return time.monotonic() - began


def with_a_deaf_child(bench: Bench, **variables: Any) -> tuple[AgentProcess, ManagedTask, int]:
    """An agent at work on a task whose child takes no notice of TERM, that task, and its pid."""
    deaf = bench.directory / "deaf"
    path = stand_in(bench.directory / "iperf3", f"trap '' TERM; : >{deaf}; exec sleep 60")
    agent = bench.agent(IPERF3_PATH=path, **variables)
    client = bench.task("iperf_client_run", **TEST)
    until(deaf.exists)
    return agent, client, agent.wait_for("client started")["pid"]


def test_an_idle_agent_ends_within_two_seconds_though_the_manager_holds_its_claim(
    bench: Bench,
) -> None:
    agent = bench.agent()
    bench.wait(lambda: bench.store.agents.get(1).last_heartbeat)
    agent.wait_for("registered")
    agent.signal(signal.SIGINT)
    assert seconds_to_end(agent) < 6
    agent.wait_for("agent stops", why="SIGINT", running=0)
    agent.wait_for("agent stopped", undelivered=0, running=0)


def test_a_second_signal_kills_a_child_that_is_deaf_to_the_first(bench: Bench) -> None:
    agent, _, pid = with_a_deaf_child(bench, STOP_GRACE="60", SHUTDOWN_TIMEOUT="60")
    agent.signal(signal.SIGTERM)
    agent.wait_for("agent stops", running=1)
    agent.signal(signal.SIGTERM)
    assert seconds_to_end(agent) < 3
    assert not is_running(pid)


def test_a_deaf_child_is_killed_in_time_for_its_result_to_be_delivered(
    bench: Bench, faulty: MakeManager
) -> None:
    def take_results_slowly(request: Request) -> bytes:
        gevent.sleep(0.1 if request.call == "result" else 0)
        return passed_on(request, bench.manager.url)

    url = faulty(take_results_slowly).url
    times = {"STOP_GRACE": "60", "SHUTDOWN_TIMEOUT": "2"}
    agent, client, pid = with_a_deaf_child(bench, MANAGER_URL=url, **times)
    agent.signal(signal.SIGTERM)
    assert seconds_to_end(agent) < 2 * 3
    assert not is_running(pid)
    assert client.status == "failed"
    assert client.error == "the agent was stopped (SIGTERM)"


def test_results_are_awaited_no_longer_than_the_shutdown_may_take(
    faulty: MakeManager, tmp_path: Path
) -> None:
    task = {"id": 1, "type": "kill_all", "payload": {}}

    def answer(request: Request) -> bytes:
        if request.call == "claim" and manager.calls().count("claim") == 1:
            return reply({"task": task})
        return b"" if request.call == "result" else well(request)

    manager = faulty(answer)
    with lone_agent(manager.url, tmp_path, SHUTDOWN_TIMEOUT="1") as agent:
        agent.wait_for("not delivered yet")
        agent.signal(signal.SIGTERM)
        assert 0.9 < seconds_to_end(agent) < 1 * 3
        agent.wait_for("agent stopped", undelivered=1)


def test_a_task_that_arrives_during_the_drain_is_reported_as_interrupted(
    faulty: MakeManager, tmp_path: Path
) -> None:
    late = {"id": 9, "type": "iperf_client_run", "payload": TEST}

    def answer(request: Request) -> bytes:
        if request.call != "claim":
            return well(request)
        agent.signal(signal.SIGTERM)
        agent.wait_for("agent stops")
        return reply({"task": late})

    manager = faulty(answer)
    with lone_agent(manager.url, tmp_path) as agent:
        assert seconds_to_end(agent) < 10
        agent.wait_for("agent stops", running=0)
    (result,) = [request for request in manager.requests if request.call == "result"]
    assert result.path == "/v1/agent/tasks/9/result"
    assert result.json()["status"] == "failed"
    assert result.json()["result"]["agent"]["error_class"] == "interrupted"
    assert manager.calls().count("claim") == 1


def test_a_drain_makes_no_claim_while_the_manager_wants_none(
    faulty: MakeManager, tmp_path: Path
) -> None:
    manager = faulty(
        lambda request: (
            reply({"pull_tasks": False}) if request.call == "heartbeat" else well(request)
        )
    )
    with lone_agent(manager.url, tmp_path) as agent:
        manager.wait_for(lambda: manager.calls().count("heartbeat") == 3)
        seen = manager.calls().count("claim")
        agent.signal(signal.SIGTERM)
        assert seconds_to_end(agent) < 6
    assert manager.calls().count("claim") == seen


def test_heartbeats_go_on_until_the_last_child_is_gone(bench: Bench) -> None:
    agent, _, _ = with_a_deaf_child(bench, STOP_GRACE="0.5", HEARTBEAT_INTERVAL="0.1")
    agent.signal(signal.SIGTERM)
    agent.wait_for("agent stops")
    for _ in range(3):
        before = bench.store.agents.get(1).last_heartbeat
        bench.wait(lambda: bench.store.agents.get(1).last_heartbeat != before, timeout=5)
    assert seconds_to_end(agent) < 6


def test_an_agent_that_may_end_when_idle_waits_for_its_task_and_its_result(bench: Bench) -> None:
    refused: dict[str, Any] = {"server_ip": "127.0.0.1", "port": free_port(), "max_retries": 0}
    client = bench.task("iperf_client_run", client_delay_seconds=0.6, **refused)
    agent = bench.agent("--exit-after-idle", "0.3")
    assert agent.exit_code() == 0
    assert client.status == "failed"
    assert bench.result(client)["agent"]["error_class"] == "refused"
    agent.wait_for("idle for long enough", seconds=0.3)


def test_a_bug_in_a_greenlet_ends_the_agent_with_that_error(
    faulty: MakeManager, tmp_path: Path
) -> None:
    manager = faulty(well)
    given = {"manager_url": manager.url, "agent_name": "a1", "state_dir": str(tmp_path)}
    settings = read_settings(given, {"AGENT_KEY": "key-1"})
    agent = Agent(settings, Key(settings.agent_key, settings.agent_key_file), StopSignals())

    def errand() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(Crashed, match="ZeroDivisionError: a bug"):
        agent.run(errand=errand)
