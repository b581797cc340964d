"""An agent that retires (USR1): it waits for the tests that run, and for nothing else."""

import signal
from pathlib import Path

from tests.support.command import stand_in
from tests.support.harness import AgentProcess, Bench, free_port, iperf3_server, until

# Runs until the file is there, and is refused then.
LATE_REFUSAL = """
while [ ! -e {refuse} ]; do sleep 0.05; done
echo "iperf3: error - unable to connect to server: Connection refused" >&2
exit 1
"""
TOLD = "the agent was told to retire (SIGUSR1)"


def retire(agent: AgentProcess, clients: int) -> None:
    """Send USR1, and wait until the agent has heard it with so many client tests in hand."""
    agent.signal(signal.SIGUSR1)
    agent.wait_for("agent retires", clients=clients)


def test_a_test_that_waits_for_its_next_attempt_is_not_waited_for(bench: Bench) -> None:
    agent = bench.agent()
    task = bench.task(
        "iperf_client_run", server_ip="127.0.0.1", port=free_port(), retry_delay_seconds=3600
    )
    agent.wait_for("the server is not ready", task_id=task.id)
    retire(agent, clients=1)
    assert agent.exit_code() == 0
    report = bench.result(task)["agent"]
    assert (report["error_class"], report["attempts"]) == ("interrupted", 1)
    assert task.error and task.error.startswith(f"{TOLD}; the last attempt: ")
    assert "refused" in task.error


def test_a_test_that_waits_for_its_first_attempt_is_not_waited_for(bench: Bench) -> None:
    agent = bench.agent()
    task = bench.task("iperf_client_run", server_ip="::1", port=1, client_delay_seconds=3600)
    agent.wait_for("task claimed", task_id=task.id)
    retire(agent, clients=1)
    assert agent.exit_code() == 0
    assert task.error == f"{TOLD} before the test began"
    assert bench.result(task)["agent"]["error_class"] == "interrupted"


def test_a_test_that_runs_ends_as_ever_and_what_waits_beside_it_at_once(bench: Bench) -> None:
    agent = bench.agent()
    with iperf3_server(port := free_port()):
        running = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=3)
        waiting = bench.task("iperf_client_run", server_ip="::1", port=1, client_delay_seconds=3600)
        bench.wait(lambda: running.status == "running")
        agent.wait_for("task claimed", task_id=waiting.id)
        retire(agent, clients=2)
        assert bench.ended(waiting).error == f"{TOLD} before the test began"
        assert running.finished_at is None
        assert agent.exit_code() == 0
    assert running.status == "succeeded", running.error
    assert bench.result(running)["end"]["sum_sent"]["seconds"] > 2.7, "it was not cut short"


def test_an_attempt_that_is_refused_in_the_meantime_is_the_last(
    bench: Bench, tmp_path: Path
) -> None:
    behaviour = LATE_REFUSAL.format(refuse=tmp_path / "refuse")
    agent = bench.agent(IPERF3_PATH=stand_in(tmp_path / "iperf3", behaviour))
    task = bench.task("iperf_client_run", server_ip="::1", port=1, time=60, retry_delay_seconds=60)
    agent.wait_for("client started", task_id=task.id)
    retire(agent, clients=1)
    (tmp_path / "refuse").touch()
    assert agent.exit_code() == 0
    assert bench.result(task)["agent"]["attempts"] == 1
    assert task.error and task.error.startswith(TOLD) and task.error.endswith("Connection refused")


def test_attempts_without_a_pause_end_as_well(bench: Bench, tmp_path: Path) -> None:
    """There is no moment between two of them at which anybody could see it wait."""
    refused = 'sleep 0.3; echo "iperf3: error - the server is busy running a test" >&2; exit 1'
    agent = bench.agent(IPERF3_PATH=stand_in(tmp_path / "iperf3", refused))
    task = bench.task(
        "iperf_client_run", server_ip="::1", port=1, max_retries=100, retry_delay_seconds=0
    )
    agent.wait_for("client started", task_id=task.id)
    retire(agent, clients=1)
    begun = [line for line in agent.lines if line["message"] == "client started"]
    assert agent.exit_code() == 0
    # Some begin while the last claim ends.
    assert bench.result(task)["agent"]["attempts"] <= len(begun) + 4
    assert task.error and task.error.startswith(TOLD)


def test_a_test_can_be_canceled_while_the_agent_retires(bench: Bench) -> None:
    agent = bench.agent(HEARTBEAT_INTERVAL="0.2")
    with iperf3_server(port := free_port()):
        task = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=600)
        waiting = bench.task("iperf_client_run", server_ip="::1", port=1, client_delay_seconds=3600)
        bench.wait(lambda: task.status == "running")
        agent.wait_for("task claimed", task_id=waiting.id)
        retire(agent, clients=2)
        bench.ended(waiting)
        heard = bench.store.agents.get(1).last_heartbeat
        bench.wait(lambda: bench.store.agents.get(1).last_heartbeat != heard)
        bench.store.tasks.cancel(task.id)
        assert agent.exit_code() == 0
    agent.wait_for("task failed", task_id=task.id, error="canceled at the Manager")
    until(lambda: not bench.store.tasks.canceled(1))
