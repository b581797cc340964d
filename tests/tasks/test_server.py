"""Server tasks end to end: their ports and files, and what ends them."""

import os
import signal
import socket
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest

from agent.dev.store.records import ManagedTask
from agent.process.ports import is_listening
from tests.support.harness import Bench, free_port, is_running, until


def server(bench: Bench, **payload: Any) -> ManagedTask:
    """A server task that listens, on a free port unless one is given."""
    task = bench.ended(bench.task("iperf_server_start", **{"port": free_port(), **payload}))
    assert task.status == "succeeded", task.error
    return task


def pid_of(bench: Bench, task: ManagedTask) -> int:
    """The process id of a server's child."""
    return int(bench.agents[0].wait_for("server listens", task_id=task.id)["pid"])


def client(bench: Bench, server_task: ManagedTask, **payload: Any) -> ManagedTask:
    """A client task against a server task; of a few bytes unless the payload says otherwise."""
    given = {"server_ip": "127.0.0.1", "port": server_task.payload["port"], "time": 5}
    return bench.task("iperf_client_run", **{**given, "bytes": 100_000, **payload})


def served(bench: Bench, server_task: ManagedTask) -> str:
    """Run a short test and wait until the server's result is of it; returns its cookie."""
    task = bench.ended(client(bench, server_task))
    assert task.status == "succeeded", task.error
    cookie: str = bench.result(task)["start"]["cookie"]
    bench.wait(lambda: cookie.encode() in bytes(server_task.result))
    return cookie


def ended(bench: Bench, task: ManagedTask) -> str:
    """Wait until the server's result says how it ended; returns those words."""
    bench.wait(lambda: b'"ended"' in bytes(task.result))
    return str(bench.result(task)["agent"]["ended"])


def test_a_success_means_that_the_child_itself_has_the_listening_socket(working: Bench) -> None:
    task = server(working)
    assert is_listening(working.result(task)["pid"], task.payload["port"])


def test_a_server_is_in_the_heartbeats_until_it_has_ended(working: Bench) -> None:
    task = server(working)
    working.wait(lambda: [row for row in working.running[1] if row.task_id == task.id])
    (row,) = [row for row in working.running[1] if row.task_id == task.id]
    assert (row.type, row.port, row.pid) == ("server", task.payload["port"], pid_of(working, task))
    os.kill(row.pid, signal.SIGKILL)
    working.wait(lambda: not [row for row in working.running[1] if row.task_id == task.id])


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"ip_version": 4}, "0.0.0.0"),
        ({"ip_version": 6}, "::"),
        ({"bind": "127.0.0.2"}, "127.0.0.2"),
        ({"bind": "::1"}, "::1"),
        ({"udp": True}, "::"),
    ],
)
def test_a_server_listens_where_its_payload_says(
    working: Bench, options: dict[str, Any], address: str
) -> None:
    process = psutil.Process(pid_of(working, server(working, **options)))
    assert [found.laddr.ip for found in process.net_connections()] == [address]


def test_a_server_stays_on_the_core_of_its_payload(working: Bench) -> None:
    process = psutil.Process(pid_of(working, server(working, affinity=0)))
    assert process.cpu_affinity() == [0]


@pytest.mark.parametrize("task_type", ["iperf_server_start", "iperf_client_run"])
def test_a_core_that_this_host_lacks_is_named(working: Bench, task_type: str) -> None:
    payload: dict[str, Any] = {"port": free_port(), "server_ip": "::1", "affinity": 999}
    task = working.ended(working.task(task_type, **payload))
    assert working.result(task)["agent"]["error_class"] == "arguments"
    assert f"this host has the cores 0 to {(os.cpu_count() or 1) - 1}" in (task.error or "")


def test_each_test_replaces_the_result_while_the_server_keeps_running(working: Bench) -> None:
    task = server(working)
    first, second = served(working, task), served(working, task)
    assert first != second
    assert working.result(task)["start"]["cookie"] == second
    assert is_running(pid_of(working, task))
    assert "ended" not in working.result(task)["agent"]


def test_a_canceled_server_keeps_its_last_document_at_the_manager(working: Bench) -> None:
    task = server(working)
    cookie = served(working, task)
    working.ended(working.task("kill_all"))
    assert ended(working, task) == "stopped by kill_all"
    assert working.result(task)["start"]["cookie"] == cookie


def test_a_server_terminated_by_another_process_reports_iperf3s_words(working: Bench) -> None:
    task = server(working)
    cookie = served(working, task)
    os.kill(pid_of(working, task), signal.SIGTERM)
    assert "the server has terminated" in ended(working, task)
    assert task.status == "succeeded"
    assert working.result(task)["start"]["cookie"] == cookie


def test_a_one_off_server_whose_client_went_away_has_not_served_its_test(working: Bench) -> None:
    task = server(working, one_off=True)
    run = client(working, task, bytes=None, time=60)
    started = working.agents[0].wait_for("client started", task_id=run.id)
    working.wait(lambda: run.status == "running")
    os.kill(started["pid"], signal.SIGKILL)
    assert "the client has unexpectedly closed the connection" in ended(working, task)


def test_a_served_test_that_its_client_ended_says_that_it_was_cut_short(working: Bench) -> None:
    task = server(working)
    run = client(working, task, bytes=None, time=60, bitrate=10_000_000)
    working.wait(lambda: run.status == "running")
    gevent.sleep(2.5)
    assert working.ended(working.task("kill_all", task_ids=[run.id])).status == "succeeded"
    working.wait(lambda: b'"figures"' in bytes(task.result))
    told = working.result(task)["agent"]
    assert told["warnings"] == ["The test was cut short: the client has terminated."]
    assert told["figures"]["received"] == pytest.approx(1e7, rel=0.3)
    assert len(set(told["figures"]["rates"])) == len(told["figures"]["rates"])


def test_probes_neither_hide_a_test_nor_fill_the_disk(working: Bench) -> None:
    task = server(working)
    written = working.child_file(task, ".json")
    for _ in range(100):
        before = written.stat().st_size
        socket.create_connection(("127.0.0.1", task.payload["port"])).close()
        until(lambda before=before: written.stat().st_size > before)  # type: ignore[misc]
    until(lambda: share_on_disk(written) < 0.6)
    served(working, task)


def test_reported_documents_do_not_fill_the_disk(working: Bench) -> None:
    task = server(working)
    written = working.child_file(task, ".json")
    assert working.ended(client(working, task, parallel=64)).status == "succeeded"
    until(lambda: written.stat().st_size > 20_000 and share_on_disk(written) < 0.6)


def test_a_document_that_cannot_be_written_stops_neither_agent_nor_server(
    working: Bench,
) -> None:
    task = server(working)
    in_the_way = working.child_file(task, ".fresh")
    in_the_way.mkdir()
    assert working.ended(client(working, task)).status == "succeeded"
    working.agents[0].wait_for("the document of a served test cannot be kept", task_id=task.id)
    assert b'"end"' not in bytes(task.result)
    in_the_way.rmdir()
    working.wait(lambda: b'"end"' in bytes(task.result))


def test_a_server_survives_the_removal_of_its_files(working: Bench) -> None:
    task = server(working)
    working.child_file(task, ".err").unlink()
    assert working.ended(client(working, task)).status == "succeeded"
    working.wait(lambda: b'"end"' in bytes(task.result))
    working.child_file(task, ".json").unlink()
    assert working.ended(client(working, task)).status == "succeeded"
    pid = pid_of(working, task)
    os.kill(pid, signal.SIGKILL)
    assert ended(working, task) == "iperf3 was killed by signal 9, not by this agent"
    assert b'"end"' in bytes(task.result), "the newest document that there is"


def test_no_server_outlives_the_hosts_limit(bench: Bench) -> None:
    bench.agent(MAX_SERVER_SECONDS="1").wait_for("registered")
    patient, brief = server(bench, max_seconds=60), server(bench, max_seconds=0.5)
    assert ended(bench, brief) == "stopped after its 0.5 s"
    assert ended(bench, patient) == "stopped after its 1 s"
    bench.wait(lambda: not bench.running[1])


@pytest.fixture(autouse=True)
def fixture_nothing_left(request: pytest.FixtureRequest) -> Any:
    """Each test ends its servers."""
    yield
    if "working" in request.fixturenames:
        working = request.getfixturevalue("working")
        assert working.ended(working.task("kill_all")).status == "succeeded"


def share_on_disk(path: Path) -> float:
    """The share of a file's size that takes space on the disk."""
    found = path.stat()
    return found.st_blocks * 512 / found.st_size
