"""Fault 5: a state directory that is full, read-only or damaged, and what an agent makes of it.

The disk is a tmpfs of 256 KiB, which the test mounts itself. Each recovery prints the seconds it
took: 10 are promised, 30 are asserted.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import subprocess

from agent.dev.store.records import ManagedTask
from tests.support.command import run
from tests.support.faulty_manager import Request
from tests.support.harness import AgentProcess, Bench, free_port, iperf3_server, until
from tests.support.lone_agent import lone_agent, passed_on
from tests.support.sockets import MakeManager

pytestmark = pytest.mark.timeout(120)

RECOVERS = 30.0
FULL = "No space left on device"
READ_ONLY = "Read-only file system"
ADVICE = "mend that, and it takes tests again by itself"


def mount(*arguments: str | Path) -> None:
    """Run mount; fails the test when it does."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


class Disk:
    """A small file system of its own, mounted on `path`. An agent's state goes into `state`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "state"
        path.mkdir()
        mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", path)

    def unmount(self) -> None:
        """Take away all that is mounted there, in use or not."""
        while os.path.ismount(self.path):
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def fill(self) -> None:
        """Leave no room at all."""
        with open(self.path / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"x" * 4096)
            except OSError as error:
                assert FULL in str(error)
        assert os.statvfs(self.path).f_bavail == 0

    def empty(self) -> None:
        """Take what `fill` has written away."""
        (self.path / "filler").unlink()

    def forbid(self) -> None:
        """Let nobody write. A file that is open can still be, as no mount may be cut off so."""
        mount("--bind", self.path, self.path)
        mount("-o", "remount,bind,ro", self.path)

    def permit(self) -> None:
        """Take `forbid` back."""
        mount("-o", "remount,bind,rw", self.path)


@pytest.fixture(name="disk")
def fixture_disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk that is unmounted whatever happens. To be asked for before the agents' bench."""
    if os.geteuid():
        if os.environ.get("CI"):
            pytest.fail("mounting a disk needs root: CI must not skip")
        pytest.skip("mounting a disk needs root")
    disk = Disk(tmp_path / "disk")
    try:
        yield disk
    finally:
        disk.unmount()


def agent_on(disk: Disk, bench: Bench) -> AgentProcess:
    """An agent that keeps its state there, registered."""
    agent = bench.agent(STATE_DIR=str(disk.state), HEARTBEAT_INTERVAL="0.2")
    agent.wait_for("registered")
    return agent


def client(bench: Bench, port: int) -> ManagedTask:
    """A test of a moment."""
    return bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=1, bytes=1000)


def refuses_tests_and_does_the_rest(bench: Bench, trouble: str) -> None:
    """It says what is wrong with a test that it cannot run, beats, and still kills all."""
    # The trouble may be noticed only by the first child that is started, or when it is reported.
    first = bench.ended(client(bench, free_port()))
    assert bench.result(first)["agent"]["error_class"] == "state_full", first.error
    refused = bench.ended(bench.task("iperf_server_start", port=free_port()))
    assert refused.status == "failed"
    assert bench.result(refused)["agent"]["error_class"] == "state_full"
    assert refused.error and trouble in refused.error and ADVICE in refused.error
    for _ in range(3):
        before = bench.store.agents.get(1).last_heartbeat
        bench.wait(lambda: bench.store.agents.get(1).last_heartbeat != before)
    kill = bench.ended(bench.task("kill_all"))
    assert kill.status == "succeeded" and bench.result(kill)["killed"] is True


def recovers(bench: Bench, agent: AgentProcess, what: str) -> None:
    """The directory can be written from now on: it says so, runs tests, and leaves nothing."""
    began = time.monotonic()
    agent.wait_for("the state directory can be written again", timeout=RECOVERS)
    print(f"{what}: recovered {time.monotonic() - began:.1f} s after it could be written")
    port = free_port()
    with iperf3_server(port):
        assert bench.ended(client(bench, port)).status == "succeeded"
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    agent.wait_for("agent stopped", undelivered=0)
    assert all(isinstance(line, dict) for line in agent.lines), "a traceback is no JSON"


def left(disk: Disk) -> list[str]:
    """The files of results and children that are still there."""
    places = ("outbox", "children", "rejected", "kept")
    return [str(file) for place in places for file in (disk.state / place).iterdir()]


def ended_normally(disk: Disk, bench: Bench) -> None:
    """An agent has been there before and has ended."""
    agent = agent_on(disk, bench)
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0


def test_a_disk_that_fills_up_stops_tests_and_nothing_else(disk: Disk, bench: Bench) -> None:
    agent = agent_on(disk, bench)
    disk.fill()
    refuses_tests_and_does_the_rest(bench, FULL)
    agent.wait_for("the state directory cannot be written")
    disk.empty()
    recovers(bench, agent, "a full disk")
    assert left(disk) == []


def test_a_disk_that_nobody_may_write_stops_tests_and_nothing_else(
    disk: Disk, bench: Bench
) -> None:
    agent = agent_on(disk, bench)
    disk.forbid()
    refuses_tests_and_does_the_rest(bench, READ_ONLY)
    disk.permit()
    recovers(bench, agent, "a read-only disk")
    assert left(disk) == []


def test_a_disk_that_nobody_may_write_any_more_costs_no_running_test(
    disk: Disk, bench: Bench
) -> None:
    """What was opened before can still be written: the documents are there, and are delivered."""
    agent = agent_on(disk, bench)
    server = bench.ended(bench.task("iperf_server_start", port=(own := free_port())))
    with iperf3_server(port := free_port()):
        tests = [
            bench.task("iperf_client_run", server_ip="127.0.0.1", port=to, time=2, bitrate=10**6)
            for to in (own, port)
        ]
        for task in tests:
            agent.wait_for("client started", task_id=task.id)
        disk.forbid()
        for task in tests:
            assert bench.ended(task).status == "succeeded", task.error
            assert bench.result(task)["end"]["sum_sent"]["bytes"]
    agent.wait_for("the document of a served test cannot be kept", task_id=server.id)
    disk.permit()
    bench.wait(lambda: b'"sum_received"' in bytes(server.result))
    assert server.status == "succeeded"
    recovers(bench, agent, "a disk that was made read-only beside tests")
    assert "ended" in bench.result(server)["agent"]


def test_a_server_whose_last_words_the_disk_does_not_take_stays_a_success(
    disk: Disk, bench: Bench
) -> None:
    agent = agent_on(disk, bench)
    server = bench.ended(bench.task("iperf_server_start", port=(port := free_port())))
    served = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=1, bytes=1000)
    assert bench.ended(served).status == "succeeded"
    bench.wait(lambda: b'"sum_received"' in bytes(server.result))
    disk.forbid()
    assert bench.ended(bench.task("kill_all")).status == "succeeded"
    bench.wait(lambda: b'"ended"' in bytes(server.result))
    assert (server.status, bench.result(server)["agent"].get("error_class")) == ("succeeded", None)
    assert bench.result(server)["end"], "with the newest document"
    disk.permit()
    recovers(bench, agent, "a disk that was made read-only beside a server")


def test_an_agent_starts_on_a_full_disk(disk: Disk, bench: Bench) -> None:
    ended_normally(disk, bench)
    disk.fill()
    agent = agent_on(disk, bench)
    refuses_tests_and_does_the_rest(bench, FULL)
    disk.empty()
    recovers(bench, agent, "a start on a full disk")


def test_an_agent_starts_on_a_read_only_disk(disk: Disk, bench: Bench) -> None:
    ended_normally(disk, bench)
    mount("-o", "remount,ro", disk.path)
    agent = agent_on(disk, bench)
    refuses_tests_and_does_the_rest(bench, READ_ONLY)
    second = bench.agent(STATE_DIR=str(disk.state))
    assert second.exit_code() == 73, "it is locked all the same"
    mount("-o", "remount,rw", disk.path)
    recovers(bench, agent, "a start on a read-only disk")


def test_an_agent_that_was_killed_starts_again_though_the_disk_is_full(
    disk: Disk, bench: Bench
) -> None:
    """What was taken out of a server's output is a hole, which a tmpfs must not be asked for."""
    agent = agent_on(disk, bench)
    server = bench.ended(bench.task("iperf_server_start", port=(port := free_port())))
    for _ in range(3):
        test = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=1, bytes=1000)
        cookie = bench.result(bench.ended(test))["start"]["cookie"].encode()
        bench.wait(lambda cookie=cookie: cookie in bytes(server.result))  # type: ignore[misc]
    agent.signal(signal.SIGKILL)
    agent.exit_code()
    disk.fill()
    again = agent_on(disk, bench)
    bench.wait(lambda: b'"ended"' in bytes(server.result))
    assert server.status == "succeeded" and cookie in bytes(server.result)
    disk.empty()
    recovers(bench, again, "an agent that was killed beside a full disk")


@pytest.mark.parametrize("trouble", [FULL, READ_ONLY])
def test_a_first_start_without_a_place_to_write_ends_with_78(
    disk: Disk, bench: Bench, trouble: str
) -> None:
    if trouble == FULL:
        disk.fill()
    else:
        mount("-o", "remount,ro", disk.path)
        ended = run("--check", cwd=bench.directory, STATE_DIR=str(disk.state), AGENT_KEY="key-1")
        assert (ended.code, ended.errors) == (78, "")
        assert f"{disk.state} is on a read-only disk: make it writable" in ended.output
    agent = bench.agent(STATE_DIR=str(disk.state))
    error = agent.wait_for("agent ends", exit_code=78)["error"]
    assert f"STATE_DIR {disk.state} cannot be used: {trouble}" in error
    assert agent.exit_code() == 78


def test_results_are_delivered_and_give_their_room_back_though_the_disk_is_full(
    disk: Disk, bench: Bench, faulty: MakeManager, tmp_path: Path
) -> None:
    refusing = [True]

    def answer(request: Request) -> bytes:
        if request.call == "result" and refusing:
            return b""
        return passed_on(request, bench.manager.url)

    manager = faulty(answer)
    port = free_port()
    with (
        iperf3_server(port),
        lone_agent(manager.url, tmp_path, STATE_DIR=str(disk.state), CLAIM_INTERVAL="0.1") as agent,
    ):
        waiting = client(bench, port)
        agent.wait_for("not delivered yet", task_id=waiting.id)
        disk.fill()
        refused = client(bench, port)
        agent.wait_for("task claimed", task_id=refused.id)
        refusing.clear()
        assert bench.ended(waiting).status == "succeeded"
        assert bench.result(bench.ended(refused))["agent"]["error_class"] == "state_full"
        disk.empty()
        recovers(bench, agent, "a disk that filled while a result waited")
    assert left(disk) == []


def test_a_child_that_fills_the_disk_loses_its_document_and_nothing_else(
    disk: Disk, bench: Bench
) -> None:
    agent = agent_on(disk, bench)
    port = free_port()
    with iperf3_server(port):
        slow: dict[str, Any] = {"server_ip": "127.0.0.1", "port": port, "bitrate": 1_000_000}
        flood = bench.task("iperf_client_run", **slow, time=2, parallel=64, interval=0.1)
        assert bench.ended(flood).status == "failed"
        assert bench.result(flood)["agent"]["error_class"] == "state_full"
        assert flood.error and "is full: the document is lost" in flood.error
        assert bench.ended(client(bench, port)).status == "succeeded"
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert left(disk) == []


@pytest.mark.parametrize("journal", ["whole", "torn", "emptied", "of nonsense"])
def test_damaged_records_are_set_aside_and_the_intact_are_delivered(
    todays_bench: Bench, faulty: MakeManager, tmp_path: Path, journal: str
) -> None:
    bench = todays_bench
    refusing = [True]

    def answer(request: Request) -> bytes:
        if request.call == "result" and refusing:
            return b""
        return passed_on(request, bench.manager.url)

    manager = faulty(answer)
    state = tmp_path / "state"
    with lone_agent(manager.url, tmp_path) as agent:
        tasks = [bench.task("kill_all") for _ in range(5)]
        until(lambda: len(list((state / "outbox").glob("*.result"))) == len(tasks))
        agent.signal(signal.SIGKILL)
    records = sorted((state / "outbox").iterdir())
    assert len(records) == 5
    torn, flipped, emptied = (records[place] for place in (0, 2, 3))
    torn.write_bytes(torn.read_bytes()[:-40])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(bytes(data))
    emptied.write_bytes(b"")
    spoil(state / "journal", journal)
    refusing.clear()
    with lone_agent(manager.url, tmp_path) as agent:
        for task in (tasks[1], tasks[4]):
            assert bench.ended(task).status == "succeeded"
        for record in (torn, flipped, emptied):
            agent.wait_for("a damaged result is set aside", file=str(record))
            assert (state / "rejected" / record.name).exists()
        if journal != "whole":
            aside = agent.wait_for("the journal has damaged lines")["set_aside"]
            assert Path(aside).exists()
        if journal == "whole":
            for place in (0, 2, 3):
                assert bench.ended(tasks[place]).error == "interrupted: the agent restarted"
        assert bench.ended(bench.task("kill_all")).status == "succeeded", "it goes on"


def spoil(journal: Path, how: str) -> None:
    """Damage a journal, or leave it whole."""
    data = journal.read_bytes()
    spoiled = {
        "whole": data,
        "torn": data[:-30],
        "emptied": b"",
        "of nonsense": os.urandom(len(data)),
    }
    journal.write_bytes(spoiled[how])
