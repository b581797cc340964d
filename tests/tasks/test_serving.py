"""Server tasks with real iperf3: when they succeed, what they report, and how they end."""

import os
import signal
import socket
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import subprocess

from tests.support.harness import Bench, free_port, iperf3_server, is_running
from tests.support.newer_iperf3 import newer_iperf3


def test_a_server_is_a_success_once_it_listens_and_each_test_replaces_its_result(
    working: Bench,
) -> None:
    port = free_port()
    server = working.ended(working.task("iperf_server_start", port=port, udp=True))
    first = working.result(server)
    assert server.status == "succeeded"
    assert (first["started"], first["port"], is_running(first["pid"])) == (True, port, True)
    assert "-u" not in first["agent"]["argv"]
    seen = []
    for streams in (1, 2):
        client = working.task(
            "iperf_client_run", server_ip="127.0.0.1", port=port, time=1, parallel=streams
        )
        assert working.ended(client).status == "succeeded", client.error
        number = f'"num_streams":\t{streams}'.encode()
        working.wait(lambda number=number: number in bytes(server.result))  # type: ignore[misc]
        seen.append(working.result(server)["end"]["sum_received"]["bytes"])
    assert len(set(seen)) == 2
    working.ended(working.task("kill_all"))
    working.wait(lambda: b'"ended"' in bytes(server.result))
    last = working.result(server)
    assert last["agent"]["ended"] == "stopped by kill_all"
    assert last["end"]["sum_received"]["bytes"] == seen[-1]
    assert server.status == "succeeded"
    assert not is_running(first["pid"])


def test_a_port_in_use_by_another_process_fails_and_names_it(working: Bench) -> None:
    port = free_port()
    with iperf3_server(port) as holder:
        server = working.ended(working.task("iperf_server_start", port=port))
        assert is_running(holder.pid or 0)
    assert server.status == "failed"
    assert f"port {port} is in use by iperf3 (pid {holder.pid})" in (server.error or "")
    assert working.result(server)["agent"]["error_class"] == "port_in_use"


def test_a_port_in_use_by_another_task_fails_and_names_it(working: Bench) -> None:
    port = free_port()
    first = working.ended(working.task("iperf_server_start", port=port))
    second = working.ended(working.task("iperf_server_start", port=port))
    assert f"in use by this agent's own task {first.id}" in (second.error or "")
    assert first.status == "succeeded"
    working.ended(working.task("kill_all"))


def test_the_holder_of_the_port_of_another_address_is_not_blamed(working: Bench) -> None:
    port = free_port()
    first = working.ended(working.task("iperf_server_start", port=port, bind="127.0.0.1"))
    assert first.status == "succeeded", first.error
    with iperf3_server(port, "-B", "127.0.0.2") as holder:
        second = working.ended(working.task("iperf_server_start", port=port, bind="127.0.0.2"))
    assert f"in use by iperf3 (pid {holder.pid})" in (second.error or "")
    working.ended(working.task("kill_all"))


def test_a_server_waits_for_a_port_that_is_being_vacated(working: Bench) -> None:
    port = free_port()
    first = working.ended(working.task("iperf_server_start", port=port))
    kill = working.task("kill_all")
    second = working.ended(working.task("iperf_server_start", port=port))
    # Both reports go to the Manager at the same time, in either order.
    working.ended(kill)
    assert working.result(kill) == {**working.result(kill), "killed": True, "count": 1}
    assert second.status == "succeeded", second.error
    assert first.status == "succeeded"
    working.ended(working.task("kill_all"))


def test_a_server_waits_for_a_one_off_server_that_is_about_to_end(working: Bench) -> None:
    """The next one may be claimed while the one before is still ending."""
    port = free_port()
    for _ in range(5):
        server = working.ended(working.task("iperf_server_start", port=port, one_off=True))
        assert server.status == "succeeded", server.error
        test = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-n", "1M"]
        subprocess.run(test, stdout=subprocess.DEVNULL, check=True)  # type: ignore[attr-defined]


def test_two_servers_may_share_a_port_on_two_addresses(working: Bench) -> None:
    port = free_port()
    for address in ("127.0.0.1", "127.0.0.2"):
        server = working.ended(working.task("iperf_server_start", port=port, bind=address))
        assert server.status == "succeeded", server.error
    working.ended(working.task("kill_all"))


@pytest.mark.parametrize(
    ("options", "family"),
    [
        ({"ip_version": 4}, socket.AF_INET),
        ({"ip_version": 6}, socket.AF_INET6),
        ({"bind": "127.0.0.1"}, socket.AF_INET),
        ({"affinity": 0, "bind_dev": "lo"}, socket.AF_INET),
    ],
)
def test_a_server_listens_as_its_payload_says(
    working: Bench, options: dict[str, Any], family: socket.AddressFamily
) -> None:
    port = free_port()
    server = working.ended(working.task("iperf_server_start", port=port, **options))
    assert server.status == "succeeded", server.error
    with socket.socket(family) as probe:
        probe.connect(("::1" if family is socket.AF_INET6 else "127.0.0.1", port))
    working.ended(working.task("kill_all"))


def test_a_server_killed_by_another_process_stays_a_success_and_says_so(working: Bench) -> None:
    server = working.ended(working.task("iperf_server_start", port=free_port()))
    os.kill(working.result(server)["pid"], signal.SIGKILL)
    working.wait(lambda: b'"ended"' in bytes(server.result))
    assert "signal 9, not by this agent" in working.result(server)["agent"]["ended"]
    assert server.status == "succeeded"
    working.wait(lambda: not working.running[1])


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("suite", ["", "sid"], ids=["installed", "sid"])
def test_a_server_that_somebody_else_stops_says_so(bench: Bench, suite: str, busy: bool) -> None:
    """The words are in the document of the test that it was serving, or in one without a test."""
    bench.agent(IPERF3_PATH=newer_iperf3(suite) if suite else "").wait_for("registered")
    port = free_port()
    server = bench.ended(bench.task("iperf_server_start", port=port, one_off=busy))
    if busy:
        client = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=30)
        bench.wait(lambda: client.status == "running")
    os.kill(bench.result(server)["pid"], signal.SIGTERM)
    bench.wait(lambda: b'"ended"' in bytes(server.result))
    last = bench.result(server)
    assert last["agent"]["ended"].startswith("iperf3 was ended by a signal, not by this agent: ")
    assert "the server has terminated" in last["agent"]["ended"]
    assert ("error" in last) == busy


@pytest.mark.parametrize("keys", [{}, {"idle_timeout": 60}])
def test_a_one_off_server_whose_client_was_stopped_has_not_served_its_test(
    working: Bench, keys: dict[str, int]
) -> None:
    port = free_port()
    server = working.ended(working.task("iperf_server_start", port=port, one_off=True, **keys))
    client = working.task("iperf_client_run", server_ip="::1", port=port, time=30)
    working.wait(lambda: client.status == "running")
    working.ended(working.task("kill_all", task_ids=[client.id]))
    working.wait(lambda: b'"ended"' in bytes(server.result))
    said = working.result(server)["agent"]["ended"]
    assert said == "iperf3 ended by itself: the client has terminated"


def test_a_one_off_server_ends_after_its_one_test(working: Bench) -> None:
    port = free_port()
    server = working.ended(working.task("iperf_server_start", port=port, one_off=True))
    working.ended(working.task("iperf_client_run", server_ip="::1", port=port, time=1))
    working.wait(lambda: b'"ended"' in bytes(server.result))
    assert working.result(server)["agent"]["ended"] == "served its one test"
    assert working.result(server)["end"]["sum_received"]["bytes"] > 0


def test_a_server_ends_after_its_max_seconds(working: Bench) -> None:
    server = working.ended(working.task("iperf_server_start", port=free_port(), max_seconds=0.5))
    working.wait(lambda: b'"ended"' in bytes(server.result))
    assert working.result(server)["agent"]["ended"] == "stopped after its 0.5 s"


def test_a_one_off_server_that_no_client_came_to_says_so(working: Bench) -> None:
    keys: dict[str, Any] = {"port": free_port(), "one_off": True, "idle_timeout": 1}
    server = working.ended(working.task("iperf_server_start", **keys))
    working.wait(lambda: b'"ended"' in bytes(server.result))
    assert working.result(server)["agent"]["ended"] == "no client came within its 1 s"


@pytest.mark.parametrize("version", ["trixie", "sid", ""])
def test_a_server_with_an_idle_timeout_goes_on_and_serves(bench: Bench, version: str) -> None:
    bench.agent(IPERF3_PATH=newer_iperf3(version) if version else "iperf3")
    port = free_port()
    server = bench.ended(bench.task("iperf_server_start", port=port, idle_timeout=1))
    gevent.sleep(2.5)
    client = bench.ended(bench.task("iperf_client_run", server_ip="::1", port=port, time=1))
    assert client.status == "succeeded", client.error
    bench.wait(lambda: b"sum_received" in bytes(server.result))


def test_a_server_that_cannot_bind_fails_with_iperf3s_words(working: Bench) -> None:
    server = working.ended(working.task("iperf_server_start", port=free_port(), bind="192.0.2.1"))
    assert server.status == "failed"
    assert "Cannot assign requested address" in (server.error or "")
    assert working.result(server)["agent"]["error_class"] == "arguments"


def test_a_server_that_never_listens_fails_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    """A stand-in for iperf3 that ends at once without a message."""
    mute = tmp_path / "mute"
    mute.write_text('#!/bin/sh\ncase "$1" in --version|--help) exec iperf3 "$1";; esac\nexit 1\n')
    mute.chmod(0o755)
    bench.agent(IPERF3_PATH=str(mute)).wait_for("registered")
    server = bench.ended(bench.task("iperf_server_start", port=free_port()))
    assert server.status == "failed"
    assert "code 1" in (server.error or "")
    bench.wait(lambda: not bench.running[1])
    assert not list((bench.directory / "state-1" / "children").iterdir())


def test_a_server_adds_nothing_to_a_disk_that_is_over_its_quota(bench: Bench) -> None:
    """Whoever reaches its port could else fill the disk, a document for each of his tests."""
    agent = bench.agent(STATE_MAX_BYTES="1M")
    port, outbox = free_port(), bench.directory / "state-1" / "outbox"
    server = bench.ended(bench.task("iperf_server_start", port=port))
    too_much = bench.directory / "state-1" / "rejected" / "000000009.document"
    too_much.write_bytes(os.urandom(2 * 1024**2))
    bench.ended(bench.task("kill_all", task_ids=[]))
    agent.wait_for("the state directory cannot be written")
    before = bytes(server.result)
    for _ in range(2):
        test = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-n", "64M", "-J"]
        subprocess.run(test, stdout=subprocess.PIPE, check=True)
    gevent.sleep(1.5)
    assert bytes(server.result) == before and not list(outbox.glob("*.document"))
    too_much.unlink()
    bench.wait(lambda: bytes(server.result) != before)
    assert bench.result(server)["end"]["sum_received"]["bytes"] > 0
