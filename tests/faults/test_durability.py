"""What is promised to be on the disk is there: by the order of the calls, and by the disk itself.

A crash of the agent alone loses nothing that it wrote, and shows nothing here. What a power cut
leaves is what the device was given: a copy of the device, taken at the moment of a request.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from gevent.event import Event

from agent.tasks.recovery import INTERRUPTED
from tests.support.faulty_manager import FaultyManager, Request, reply, well
from tests.support.harness import PATIENCE, AgentProcess, free_port, iperf3_server, until
from tests.support.lone_agent import lone_agent
from tests.support.loop_disk import POSSIBLE, LoopDisk
from tests.support.needs import need
from tests.support.record_state import CREATED_AT, REGISTERED, client, results
from tests.support.sockets import MakeManager
from tests.support.system_calls import Call, calls_in, traced

need(POSSIBLE and shutil.which("strace"), "durability needs root, loop devices, ext4 and strace")

KEY = "idempotency-key"
WRITE, SYNC, UNLINK, LINK = "write", "fsync fdatasync", "unlink unlinkat", "link linkat"
RENAME = "rename renameat renameat2"


def manager_of(tasks: list[dict[str, Any]]) -> Callable[[Request], bytes]:
    """The answers of a Manager that hands out these tasks and takes all results."""

    def answer(request: Request) -> bytes:
        if request.call == "register":
            return reply(REGISTERED)
        if request.call == "claim" and tasks:
            return reply({"task": tasks.pop(0)})
        if request.call == "result":
            number, status = int(request.path.split("/")[-2]), request.json()["status"]
            return reply({"id": number, "status": status, "created_at": CREATED_AT})
        return well(request)

    return answer


def claims(manager: FaultyManager) -> list[Request]:
    """The claims that arrived so far."""
    return [request for request in manager.requests if request.call == "claim"]


class Trace:
    """The calls of an agent that ran two tests, and what its Manager saw of it."""

    def __init__(self, calls: list[Call], manager: FaultyManager) -> None:
        self.calls = calls
        self.claims = claims(manager)
        self.results = results(manager)

    def first(self, names: str, after: int, *words: str) -> Call:
        """The first of these calls that began after that place and has all the words."""
        for call in self.calls:
            if call.name in names.split() and call.began > after:
                if all(word in call.text for word in words):
                    return call
        raise AssertionError(f"no {names} after {after} with {words}")

    def sent(self, request: Request) -> Call:
        """The call with the first byte of a request."""
        return self.first("sendto", -1, f'"POST {request.path} ', request.headers[KEY])

    def lasting(self, written: Call) -> int:
        """The place from which on the disk has what was written, under its name."""
        (path,) = written.paths
        synced = self.first(SYNC, written.ended, f"<{path}>")
        if not path.endswith(".new"):
            return synced.ended
        renamed = self.first(RENAME, -1, f'"{path}"')
        assert synced.ended < renamed.began
        return self.first("fsync", renamed.ended, f"<{os.path.dirname(path)}>").ended


@pytest.fixture(name="trace", scope="module")
def fixture_trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trace]:
    """Two tests, one after the other, from the agent's start to its end."""
    directory, port = tmp_path_factory.mktemp("trace"), free_port()
    manager = FaultyManager(manager_of([client(n, port, bytes=1000) for n in (1, 2)]))
    program = traced(directory / "calls")
    try:
        with iperf3_server(port), lone_agent(manager.url, directory, program=program) as agent:
            manager.wait_for(lambda: len(results(manager)) == 2)
            until(lambda: not list((directory / "state" / "outbox").iterdir()))
            agent.signal(signal.SIGTERM)
            assert agent.exit_code() == 0
        until(lambda: "exited with 0 +++" in (directory / "calls").read_text()[-100:])
        yield Trace(calls_in(directory / "calls"), manager)
    finally:
        manager.stop()


@pytest.mark.parametrize("number", [0, 1])
def test_a_result_is_on_the_disk_before_its_first_byte_is_sent(trace: Trace, number: int) -> None:
    request = trace.results[number]
    written = trace.first(WRITE, -1, request.headers[KEY])
    (path,) = written.paths
    assert path.endswith(".result.new")
    assert trace.lasting(written) < trace.sent(request).began
    # The record vouches for the document, and so comes into place behind that.
    record, document = path.removesuffix(".new"), path.replace(".result.new", ".document")
    recorded = trace.first(RENAME, -1, f'"{record}"').began
    linked = trace.first(LINK, -1, f'"{document}"')
    assert linked.ended < recorded
    by_iperf3 = [
        call.ended
        for call in trace.calls
        if call.name == WRITE and call.paths[0] == linked.paths[0]
    ]
    assert any(
        call.paths[0] in linked.paths and max(by_iperf3) < call.began and call.ended < recorded
        for call in trace.calls
        if call.name in SYNC.split()
    )


@pytest.mark.parametrize("number", [0, 1])
def test_a_claimed_task_is_on_the_disk_before_the_next_claim(trace: Trace, number: int) -> None:
    following = trace.claims[number + 1]
    written = trace.first(WRITE, -1, "/journal", following.headers[KEY], f'"id":{number + 1},')
    assert trace.lasting(written) < trace.sent(following).began


@pytest.mark.parametrize("number", [0, 1])
def test_a_result_stays_until_it_is_answered_and_the_disk_has_that(
    trace: Trace, number: int
) -> None:
    """The record, under whatever name, tells the next start what became of the document."""
    sent = trace.sent(trace.results[number])
    answered = trace.first("recvfrom", sent.ended, f"<{sent.paths[0]}>", '"HTTP/1.1 200')
    noted = trace.first(WRITE, answered.ended, "/journal", trace.claims[number].headers[KEY])
    written = trace.first(WRITE, -1, trace.results[number].headers[KEY]).paths[0]
    stem = written.removesuffix(".result.new")
    removed = trace.first(UNLINK, -1, f'"{stem}.document"')
    assert answered.ended < removed.began
    names = [f'"{stem}.result"', f'"{stem}.settled"']
    for call in trace.calls:
        if call.name in UNLINK.split() and any(name in call.text for name in names):
            assert trace.lasting(noted) < call.began


class PowerCut:
    """An agent on a disk of its own, and the next one on what the power cut left of that disk."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack, self._directory = stack, directory
        self._disk = self._mounted("before")

    def agent(self, url: str) -> AgentProcess:
        """An agent on the disk as it is."""
        state = self._disk.path / "state"
        return self._stack.enter_context(lone_agent(url, self._directory, STATE_DIR=str(state)))

    def cut(self) -> None:
        """Let the disk be, from now on, what the device was given so far."""
        self._disk.copy(self._directory / "after.ext4")

    def restore(self, agent: AgentProcess) -> None:
        """End the agent, which is past the power cut, and mount what was left."""
        agent.close()
        self._disk = self._mounted("after")

    def _mounted(self, name: str) -> LoopDisk:
        disk = LoopDisk(self._directory / f"{name}.ext4", self._directory / name)
        self._stack.callback(disk.unmount)
        return disk


@pytest.fixture(name="power")
def fixture_power(tmp_path: Path) -> Iterator[PowerCut]:
    """A disk; to be asked for before what uses it."""
    with ExitStack() as stack:
        yield PowerCut(stack, tmp_path)


def test_a_power_cut_at_the_first_byte_of_a_result_leaves_it_and_its_document(
    power: PowerCut, faulty: MakeManager
) -> None:
    port = free_port()
    rest = manager_of([client(1, port, bytes=1000)])
    cut = Event()

    def answer(request: Request) -> bytes:
        if request.call == "result" and not cut.is_set():
            power.cut()
            cut.set()
            return b""
        return rest(request)

    manager = faulty(answer)
    with iperf3_server(port):
        agent = power.agent(manager.url)
        assert cut.wait(PATIENCE), agent.lines
    power.restore(agent)
    sent = len(results(manager))
    power.agent(manager.url)
    manager.wait_for(lambda: len(results(manager)) > sent)
    first, again = results(manager)[0], results(manager)[-1]
    assert first.json()["status"] == "succeeded" and first.json()["result"]["end"]
    assert again.headers[KEY] == first.headers[KEY]
    assert again.json() == first.json()


def test_a_power_cut_at_the_next_claim_leaves_the_tasks(
    power: PowerCut, faulty: MakeManager
) -> None:
    waiting = [client(number, free_port(), client_delay_seconds=3600) for number in (1, 2)]
    rest = manager_of(waiting)
    cut = Event()

    def answer(request: Request) -> bytes:
        if request.call == "claim" and not waiting and not cut.is_set():
            power.cut()
            cut.set()
            return b""
        return rest(request)

    manager = faulty(answer)
    agent = power.agent(manager.url)
    assert cut.wait(PATIENCE), agent.lines
    power.restore(agent)
    last, before = claims(manager)[-1], len(claims(manager))
    power.agent(manager.url)
    manager.wait_for(lambda: len(results(manager)) == 2 and claims(manager)[before:])
    assert {request.json()["stderr"] for request in results(manager)} == {INTERRUPTED}
    numbers = {int(request.path.split("/")[-2]) for request in results(manager)}
    assert numbers == {1, 2}
    assert claims(manager)[before].headers[KEY] == last.headers[KEY]
