"""How an agent ends: what it still claims, stops and delivers."""

import signal
from pathlib import Path
from typing import Any

import pytest

from agent.config.key import Key
from agent.config.settings import read_settings
from agent.errors import AgentError
from agent.service.lifecycle import Agent
from agent.service.signals import StopSignals
from tests.support.deaf_child import with_a_deaf_child
from tests.support.faulty_manager import Request, reply, well
from tests.support.harness import Bench, free_port
from tests.support.lone_agent import lone_agent
from tests.support.sockets import MakeManager

pytestmark = pytest.mark.process

TEST: dict[str, Any] = {"server_ip": "127.0.0.1", "port": 5201, "time": 60}


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
        assert agent.exit_code(timeout=10) == 0
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
        assert agent.exit_code() == 0
    assert manager.calls().count("claim") == seen


def test_heartbeats_go_on_until_the_last_child_is_gone(bench: Bench) -> None:
    agent, _, _ = with_a_deaf_child(bench, STOP_GRACE="0.5", HEARTBEAT_INTERVAL="0.1")
    agent.signal(signal.SIGTERM)
    agent.wait_for("agent stops")
    for _ in range(3):
        before = bench.store.agents.get(1).last_heartbeat
        bench.wait(lambda: bench.store.agents.get(1).last_heartbeat != before)
    assert agent.exit_code() == 0


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

    def self_test() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(AgentError, match="ZeroDivisionError: a bug"):
        agent.run(self_test=self_test)
