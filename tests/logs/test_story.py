"""What the log tells about an agent: its start, each task, its children, its end."""

import signal
from pathlib import Path
from typing import Any

import pytest

from agent import __version__
from agent.tasks.installed import InstalledIperf3
from tests.support.command import NO_MANAGER, stand_in
from tests.support.harness import AgentProcess, Bench, free_port, iperf3_server
from tests.support.lone_agent import lone_agent

# The messages of the lines without a task, if nothing goes wrong.
# Of a usual length: the log has a line about a short one.
KEY = "key-of-a1"
OF_NO_TASK = {"agent starts", "registered", "agent stops", "agent stopped"}
DEAF = 'trap "" TERM\nwhile :; do sleep 1; done'


def story(agent: AgentProcess, task_id: int) -> list[str]:
    """The messages of the lines with the id of the task."""
    return [line["message"] for line in agent.lines if line.get("task_id") == task_id]


def stopped(agent: AgentProcess) -> dict[str, Any]:
    """Stop it; returns its last line."""
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    last: dict[str, Any] = agent.lines[-1]
    assert last["message"] == "agent stopped"
    return last


def test_the_start_line_has_the_versions_and_the_changed_settings(bench: Bench) -> None:
    variables: dict[str, Any] = {
        "MAX_BITRATE": "10G",
        "ALLOWED_TARGETS": "10.0.0.0/8,fd00::/8",
        "HEARTBEAT_INTERVAL": "2.5",
        "LOG_LEVEL": "info",
        "STATUS_ADDRESS": f"127.0.0.1:{free_port()}",
    }
    agent = bench.agent(**variables)
    first = agent.wait_for("agent starts")
    assert first["version"] == __version__
    assert first["iperf3"] == InstalledIperf3("iperf3").ask().version
    assert first["settings"] == {
        "MANAGER_URL": bench.manager.url,
        "AGENT_NAME": "a1",
        "STATE_DIR": str(bench.directory / "state-1"),
        "STATUS_ADDRESS": variables["STATUS_ADDRESS"],
        "HEARTBEAT_INTERVAL": "2.5",
        "CLAIM_INTERVAL": "0.1",
        "MAX_BITRATE": "10G",
        "ALLOWED_TARGETS": "10.0.0.0/8,fd00::/8",
    }


def test_a_missing_iperf3_is_null_in_the_start_line_and_an_error_in_the_next(
    bench: Bench,
) -> None:
    bench.store.agents.update(1, {"registration_key": KEY})
    agent = bench.agent(IPERF3_PATH="/no/iperf3", AGENT_KEY=KEY)
    agent.wait_for("registered")
    assert agent.lines[0]["iperf3"] is None
    assert agent.lines[1]["level"] == "error" and "/no/iperf3" in agent.lines[1]["error"]


def test_the_log_tells_what_happens_to_each_task_and_each_line_has_its_id(bench: Bench) -> None:
    bench.store.agents.update(1, {"registration_key": KEY})
    agent = bench.agent(AGENT_KEY=KEY)
    port = free_port()
    target: dict[str, Any] = {"server_ip": "127.0.0.1", "max_retries": 0}
    server = bench.ended(bench.task("iperf_server_start", port=port))
    client = bench.ended(bench.task("iperf_client_run", port=port, time=1, **target))
    alone = bench.ended(bench.task("iperf_client_run", port=free_port(), time=1, **target))
    wrong = bench.ended(bench.task("iperf_client_run", port=0, **target))
    agent.wait_for("result delivered", task_id=wrong.id)
    bench.ended(bench.task("kill_all"))
    stopped(agent)
    assert story(agent, server.id)[:4] == [
        "task claimed",
        "server started",
        "server listens",
        "result delivered",
    ]
    assert story(agent, server.id)[-1] == "result delivered"
    assert "server ended" in story(agent, server.id)
    began = ["task claimed", "client started", "client ended"]
    reported = ["result", "result delivered"]
    assert story(agent, client.id) == [*began, *reported]
    assert story(agent, alone.id) == [*began, "task failed", *reported]
    assert story(agent, wrong.id) == ["task claimed", "task failed", *reported]
    why = agent.wait_for("task failed", task_id=alone.id)
    assert (why["error_class"], why["error"]) == ("refused", alone.error)
    assert {line["message"] for line in agent.lines if "task_id" not in line} == OF_NO_TASK


def test_the_last_line_says_how_each_child_ended(bench: Bench) -> None:
    port, deaf_one = free_port(), stand_in(bench.directory / "deaf", DEAF)
    agent = bench.agent(STOP_GRACE="1")
    server = bench.ended(bench.task("iperf_server_start", port=port))
    server_pid = agent.wait_for("server started")["pid"]
    # This server keeps running: if it stopped, its client would end by itself.
    other_port = free_port()
    with (
        iperf3_server(other_port),
        lone_agent(
            bench.manager.url,
            bench.directory,
            AGENT_NAME="a2",
            AGENT_KEY="key-2",
            IPERF3_PATH=deaf_one,
            STOP_GRACE="0.2",
        ) as other,
    ):
        client = bench.task("iperf_client_run", server_ip="127.0.0.1", port=other_port, time=60)
        bench.wait(lambda: client.status == "running")
        client_pid = agent.wait_for("client started")["pid"]
        deaf = bench.task("iperf_client_run", number=2, server_ip="127.0.0.1", port=1, time=60)
        deaf_pid = other.wait_for("client started")["pid"]
        bench.wait(lambda: deaf.status == "running")
        (child,) = stopped(other)["children"]
        children = stopped(agent)["children"]
    assert child == {"task_id": deaf.id, "type": "client", "pid": deaf_pid, "fate": "killed"}
    assert children == [
        {"task_id": server.id, "type": "server", "pid": server_pid, "fate": "terminated"},
        {"task_id": client.id, "type": "client", "pid": client_pid, "fate": "terminated"},
    ]


def test_a_child_that_ended_before_a_retry_is_reported_as_ended_by_itself(bench: Bench) -> None:
    agent = bench.agent()
    patient: dict[str, Any] = {
        "server_ip": "127.0.0.1",
        "port": free_port(),
        "retry_delay_seconds": 60,
    }
    client = bench.task("iperf_client_run", time=1, **patient)
    agent.wait_for("the server is not ready", task_id=client.id)
    (child,) = stopped(agent)["children"]
    assert (child["task_id"], child["fate"]) == (client.id, "ended by itself")


@pytest.mark.process
def test_an_agent_that_cannot_register_logs_it_once_and_at_its_end(tmp_path: Path) -> None:
    with lone_agent(NO_MANAGER, tmp_path, REGISTER_TIMEOUT="4", AGENT_KEY=KEY) as agent:
        assert agent.exit_code() == 69
    assert [line["message"] for line in agent.lines] == [
        "agent starts",
        "not registered yet",
        "agent ends",
    ]


def test_each_loop_logs_an_outage_of_the_manager_once(bench: Bench) -> None:
    agent = bench.agent(HEARTBEAT_INTERVAL="0.1")
    agent.wait_for("registered")
    bench.manager.stop()
    agent.wait_for("no heartbeat; tests go on")
    agent.wait_for("no claim")
    port = bench.manager.port
    bench.manager = type(bench.manager)(bench.store, "127.0.0.1", port)
    bench.manager.start()
    back = agent.wait_for("the Manager is back")
    assert back["failures"] >= 1 and back["seconds"] >= 0
    agent.wait_for("claims are answered again")
    for message in ("no heartbeat; tests go on", "no claim"):
        assert [line["message"] for line in agent.lines].count(message) == 1
