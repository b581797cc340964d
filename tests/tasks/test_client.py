"""Client tasks end to end: when they run, when they are retried, and what interrupts them."""

import os
import signal
from typing import Any

import gevent
import pytest

from agent.dev.store.records import ManagedTask
from tests.support.harness import Bench, free_port, iperf3_server, is_running


def client(bench: Bench, port: int, **payload: Any) -> ManagedTask:
    """A client task over loopback; of a few bytes unless the payload says otherwise."""
    given: dict[str, Any] = {"server_ip": "127.0.0.1", "time": 5, "bytes": 100_000}
    return bench.task("iperf_client_run", port=port, **{**given, **payload})


def running(bench: Bench, port: int) -> tuple[ManagedTask, int]:
    """A running client task of one minute, and the process id of its child."""
    task = client(bench, port, bytes=None, time=60, interval=0.1)
    bench.wait(lambda: task.status == "running")
    return task, int(bench.agents[0].wait_for("client started", task_id=task.id)["pid"])


def agent_of(bench: Bench, task: ManagedTask) -> Any:
    """The key `agent` of an ended task's result."""
    return bench.result(bench.ended(task))["agent"]


def test_a_delayed_client_finds_a_server_that_was_claimed_after_it(working: Bench) -> None:
    port = free_port()
    task = client(working, port, client_delay_seconds=0.5, max_retries=0)
    working.agents[0].wait_for("task claimed", task_id=task.id)
    server = working.task("iperf_server_start", port=port)
    assert working.ended(task).status == "succeeded", task.error
    lines = working.agents[0].lines
    listens = working.agents[0].wait_for("server listens", task_id=server.id)
    started = working.agents[0].wait_for("client started", task_id=task.id)
    assert lines.index(listens) < lines.index(started)
    working.ended(working.task("kill_all"))


def test_a_retry_succeeds_once_a_busy_server_is_free(working: Bench) -> None:
    port = free_port()
    with iperf3_server(port):
        long, _ = running(working, port)
        task = client(working, port, max_retries=20, retry_delay_seconds=0.1)
        line = working.agents[0].wait_for("the server is not ready", task_id=task.id)
        assert "the server is busy running a test" in line["why"]
        working.store.tasks.cancel(long.id)
        assert working.ended(task).status == "succeeded", task.error
    assert agent_of(working, task)["attempts"] >= 2


def test_a_refused_test_waits_longer_before_each_retry(working: Bench) -> None:
    task = client(working, free_port(), max_retries=3, retry_delay_seconds=0.1)
    assert agent_of(working, task)["attempts"] == 4
    lines = [
        line
        for line in working.agents[0].lines
        if line.get("task_id") == task.id and line["message"] == "the server is not ready"
    ]
    assert [line["tries_left"] for line in lines] == [3, 2, 1]
    # Each is up to a fifth shorter or longer.
    for line, seconds in zip(lines, (0.1, 0.2, 0.4), strict=True):
        assert line["retry_in"] == pytest.approx(seconds, rel=0.21)


def test_a_task_stopped_between_two_tries_is_killed_not_refused(working: Bench) -> None:
    task = client(working, free_port(), retry_delay_seconds=3600)
    working.agents[0].wait_for("the server is not ready", task_id=task.id)
    working.ended(working.task("kill_all"))
    assert agent_of(working, task)["error_class"] == "killed"
    assert task.error and task.error.startswith("stopped by kill_all; the last attempt: ")
    assert working.result(task)["agent"]["stopped"] is True


def test_a_kill_during_a_retry_reports_nothing_of_the_try_before(bench: Bench) -> None:
    agent = bench.agent()
    task = client(bench, port := free_port(), bytes=None, time=60, max_retries=20)
    agent.wait_for("the server is not ready", task_id=task.id)
    with iperf3_server(port):
        bench.wait(lambda: task.status == "running")
        agent.signal(signal.SIGKILL)
        agent.exit_code()
        bench.agent()
        report = agent_of(bench, task)
    assert report["error_class"] == "interrupted" and report["attempts"] >= 2
    assert "started_at" in report and "finished_at" not in report


def test_a_wrong_address_family_is_not_retried(working: Bench) -> None:
    task = client(working, free_port(), ip_version=6, max_retries=5)
    report = agent_of(working, task)
    assert (report["error_class"], report["attempts"]) == ("unknown_host", 1)
    assert task.started_at is None


def test_the_part_measured_before_the_server_died_is_reported(working: Bench) -> None:
    port = free_port()
    with iperf3_server(port) as server:
        task, _ = running(working, port)
        gevent.sleep(0.5)
        server.kill()
        assert agent_of(working, task)["error_class"] == "peer_lost"
    assert working.result(task)["intervals"]


def test_a_client_killed_by_another_process_fails_and_names_the_signal(working: Bench) -> None:
    port = free_port()
    with iperf3_server(port):
        task, pid = running(working, port)
        os.kill(pid, signal.SIGKILL)
        assert agent_of(working, task)["error_class"] == "killed"
    assert task.error == "iperf3 was ended by SIGKILL"


def test_two_tests_at_once_warn_of_each_other(working: Bench) -> None:
    first_port, second_port = free_port(), free_port()
    with iperf3_server(first_port), iperf3_server(second_port):
        tasks = [client(working, port, bytes=None, time=1) for port in (first_port, second_port)]
        found = [agent_of(working, task).get("warnings", []) for task in tasks]
    assert all("another test ran on this host at the same time" in each for each in found)


def test_a_client_is_in_the_heartbeats_only_while_it_runs(working: Bench) -> None:
    port = free_port()
    with iperf3_server(port):
        task, pid = running(working, port)
        working.wait(lambda: [row.pid for row in working.running[1]] == [pid])
        (row,) = working.running[1]
        assert (row.type, row.port, row.task_id) == ("client", port, task.id)
        working.store.tasks.cancel(task.id)
        working.wait(lambda: not working.running[1])
    assert not is_running(pid)


def test_a_result_says_how_it_was_measured(working: Bench) -> None:
    port = free_port()
    with iperf3_server(port):
        report = agent_of(working, client(working, port))
    assert report["interface"] == "lo"
    assert report["mtu"] > 0
    assert report["iperf3_version"].startswith("3.")
    assert report["started_at"] <= report["finished_at"]
    assert report["congestion"] and report["kernel"] and report["version"]
