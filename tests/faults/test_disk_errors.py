"""Errors of the disk, one call at a time: each costs what it has to, and nothing else.

The disk of a real agent is preloaded (faulty_disk.py). What an agent finds at its start is what
another agent, which was killed, has left: results that wait, and tasks without an outcome.
"""

import errno
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import subprocess

from agent.tasks.recovery import INTERRUPTED
from tests.support.command import run, stand_in
from tests.support.faulty_disk import CALLS, POSSIBLE, FaultyDisk
from tests.support.faulty_manager import Request
from tests.support.harness import AgentProcess, free_port, iperf3_server, is_running, until
from tests.support.needs import need
from tests.support.record_state import agent_variables, client, task
from tests.support.task_manager import TaskManager

need(POSSIBLE, "a disk that fails on demand needs Linux and gcc")

pytestmark = pytest.mark.timeout(90)

ERRNOS = [errno.EACCES, errno.EIO, errno.ESTALE, errno.ELOOP, errno.EMFILE]
# What the killed agent left. Tests whose results wait, one for each errno, and a kill_all's result;
# tests that had ended without a saved outcome, one for each errno; a server that served a test.
WAITING, KILL_ALL, ENDED, SERVER = range(1, 6), 6, range(11, 16), 20
EVERY = {*WAITING, KILL_ALL, *ENDED, SERVER}
# Nothing is wrong with the document that this one has.
NOT_NOW = WAITING[ERRNOS.index(errno.EMFILE)]
IDEMPOTENCY_KEY = "idempotency-key"


class Left:
    """The state directory that a killed agent left, and what its Manager knows of that agent."""

    def __init__(self, state: Path, manager: TaskManager) -> None:
        self.state = state
        refused = [request for request in manager.requests if request.call == "result"]
        # The Idempotency-Keys of results, by task, and of the claim that was not answered.
        self.result_keys = {
            int(request.path.split("/")[-2]): request.headers[IDEMPOTENCY_KEY]
            for request in refused
        }
        claims = [request for request in manager.requests if request.call == "claim"]
        self.claim_key = claims[-1].headers[IDEMPOTENCY_KEY]
        self.record = {
            number: next(
                path.name.partition(".")[0]
                for path in (state / "outbox").glob("*.result")
                if self.result_keys[number] in path.read_text()
            )
            for number in (*WAITING, KILL_ALL)
        }


@pytest.fixture(name="left", scope="module")
def fixture_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    """What every test's agent finds, in a copy of its own."""
    directory = tmp_path_factory.mktemp("left")
    state = directory / "state"
    own, ports = free_port(), [free_port() for _ in WAITING]
    manager = TaskManager(
        task(KILL_ALL, "kill_all"),
        task(SERVER, "iperf_server_start", port=own),
        *(client(number, port, bytes=1000) for number, port in zip(WAITING, ports)),
        *(client(number, own, client_delay_seconds=3600) for number in ENDED),
    )
    manager.takes = lambda number: number == SERVER
    with ExitStack() as stack:
        stack.callback(manager.stop)
        for port in ports:
            stack.enter_context(iperf3_server(port))
        agent = AgentProcess(cwd=directory, **agent_variables(manager, state))
        stack.callback(agent.close)
        manager.wait_for(lambda: manager.taken[SERVER])
        argv = ["iperf3", "-c", "127.0.0.1", "-p", str(own), "-n", "1000"]
        subprocess.run(argv, check=True, capture_output=True)
        manager.wait_for(lambda: len(manager.taken[SERVER]) == 2)
        until(lambda: len(list((state / "outbox").glob("*.result"))) == len(WAITING) + 1)
        manager.wait_for(lambda: not manager.tasks)
        manager.wait_for_calls("claim", 2)
        agent.signal(signal.SIGKILL)
        agent.exit_code()
        document = next((state / "outbox").glob("*.document"))
        for number in ENDED:
            ended = state / "children" / f"{number}.1.{manager.keys[number]}.json"
            ended.write_bytes(document.read_bytes())
        yield Left(state, manager)


class Life:
    """An agent that finds what was left, on a disk that fails as its test says."""

    def __init__(self, directory: Path, stack: ExitStack, left: Left | None) -> None:
        """Begin with what was left, if anything was."""
        self._directory, self._stack = directory, stack
        self.state = directory / "state"
        self.left = left
        if left:
            # Where the served tests were, the server's output has a hole.
            copy = ["cp", "-a", "--sparse=always", str(left.state), str(self.state)]
            subprocess.run(copy, check=True)
        self.port = free_port()
        self.disk = FaultyDisk(directory / "faults")
        self.manager = TaskManager()
        stack.callback(self.manager.stop)

    def record(self, number: int, suffix: str = ".result") -> Path:
        """A file of a result that waits."""
        assert self.left
        return self.state / "outbox" / f"{self.left.record[number]}{suffix}"

    def variables(self) -> dict[str, str]:
        """The agent's environment."""
        settings = agent_variables(self.manager, self.state)
        return {**settings, "HEARTBEAT_INTERVAL": "0.2", **self.disk.variables}

    def agent(self, **variables: str) -> AgentProcess:
        """Start the agent."""
        agent = AgentProcess(cwd=self._directory, **{**self.variables(), **variables})
        # Shown with a test that fails.
        self._stack.callback(lambda: print(*agent.lines, *self.disk.met(), sep="\n"))
        self._stack.callback(agent.close)
        return agent

    def taken(self) -> set[int]:
        """The tasks of which the Manager took a result."""
        return {number for number, requests in self.manager.taken.items() if requests}

    def wait_for(self, *numbers: int) -> None:
        """Wait until the Manager has a result of these tasks."""
        self.manager.wait_for(lambda: self.taken() >= set(numbers))

    def goes_on(self) -> None:
        """Return when the agent has sent some heartbeats more."""
        self.manager.wait_for_calls("heartbeat", 3)

    def is_whole(self, number: int) -> None:
        """The result of the task came as a success with its document, and once."""
        (request,) = self.manager.taken[number]
        body = request.json()
        assert (body["status"], body["stderr"]) == ("succeeded", ""), number
        assert body["result"]["end"], number
        if self.left and number in WAITING:
            assert request.headers[IDEMPOTENCY_KEY] == self.left.result_keys[number]

    def is_whole_at_last(self, number: int) -> None:
        """The same of a result that is still to come."""
        self.wait_for(number)
        self.is_whole(number)

    def lacks_its_document(self, number: int) -> None:
        """The result of the task came as a success that says that its document was lost."""
        (request,) = self.manager.taken[number]
        body = request.json()
        assert body["status"] == "succeeded" and "end" not in body["result"], number
        assert "lost" in " ".join(body["result"]["agent"]["warnings"]), number

    def all_came_once(self, agent: AgentProcess, but: frozenset[int] = frozenset()) -> None:
        """Every task had one outcome; the agent still works, and ends well with nothing left."""
        expected = {*EVERY, 99} - but
        self.wait_for(*expected - {99})
        self.manager.tasks.append(task(99, "kill_all"))
        assert self.manager.outcome(99)["status"] == "succeeded"
        assert {number: len(taken) for number, taken in self.manager.taken.items() if taken} == {
            number: 1 for number in expected
        }
        self.ends_well(agent)

    def ends_well(self, agent: AgentProcess) -> None:
        """The agent ends when it is told to; nothing waits, and nothing was a bug."""
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
        agent.wait_for("agent stopped", undelivered=0)
        assert all(isinstance(line, dict) for line in agent.lines), "a traceback is no JSON"
        assert self.files("outbox") == set()

    def files(self, below: str) -> set[str]:
        """The names of the files in a directory of the state."""
        return {path.name for path in (self.state / below).iterdir()}


@pytest.fixture(name="life")
def fixture_life(tmp_path: Path, left: Left) -> Iterator[Life]:
    """An agent's life, which begins when the test says so."""
    with ExitStack() as stack:
        yield Life(tmp_path, stack, left)


@pytest.fixture(name="fresh")
def fixture_fresh(tmp_path: Path) -> Iterator[Life]:
    """The same without anything that was left, and an iperf3 server at `port`."""
    with ExitStack() as stack:
        life = Life(tmp_path, stack, None)
        stack.enter_context(iperf3_server(life.port))
        yield life


def test_what_was_left_is_delivered_whole_by_a_sound_disk(life: Life) -> None:
    agent = life.agent()
    life.wait_for(*EVERY)
    for number in (*WAITING, *ENDED, SERVER):
        life.is_whole(number)
    life.all_came_once(agent)
    assert life.files("rejected") == life.files("children") == set()


@pytest.mark.parametrize("number", [errno.EACCES, errno.ELOOP])
def test_a_journal_that_nobody_may_open_is_a_fault_of_the_configuration(
    life: Life, number: int
) -> None:
    def content() -> dict[Path, bytes]:
        # The lock says which agent has it.
        files = (path for path in life.state.rglob("*") if path.is_file() and path.name != "lock")
        return {path: path.read_bytes() for path in files}

    life.disk.fail("open access", life.state / "journal", number)
    before = content()
    ended = run("--check", cwd=life.state.parent, **life.variables())
    assert ended.code == 78 and str(life.state / "journal") in ended.output, ended.output
    agent = life.agent()
    assert agent.exit_code() == 78
    assert str(life.state / "journal") in agent.wait_for("agent ends", exit_code=78)["error"]
    assert content() == before
    assert life.taken() == set()


@pytest.mark.parametrize(
    ("call", "number"),
    [("open", errno.EIO), ("open", errno.EMFILE), ("read", errno.ESTALE)],
)
def test_a_journal_that_cannot_be_read_stops_claims_until_it_can_be(
    life: Life, call: str, number: int
) -> None:
    life.disk.fail(call, life.state / "journal", number)
    agent = life.agent()
    life.wait_for(*WAITING, KILL_ALL)
    life.goes_on()
    assert life.taken() == {*WAITING, KILL_ALL}
    assert "claim" not in life.manager.calls()
    assert any("journal" in line["message"] for line in agent.lines if line["level"] == "error")
    life.disk.lift()
    life.wait_for(*EVERY)
    for each in (*WAITING, *ENDED, SERVER):
        life.is_whole(each)
    life.manager.wait_for(lambda: "claim" in life.manager.calls())
    first = next(each for each in life.manager.requests if each.call == "claim")
    assert life.left and first.headers[IDEMPOTENCY_KEY] == life.left.claim_key
    life.all_came_once(agent)
    assert life.files("rejected") == set()


@pytest.mark.parametrize("call", ["open", "read", "stat"])
def test_a_record_that_cannot_be_read_is_left_and_tried_again(life: Life, call: str) -> None:
    for number, each in zip(WAITING, ERRNOS):
        life.disk.fail(call, life.record(number), each)
    agent = life.agent()
    life.wait_for(KILL_ALL)
    life.manager.wait_for_calls("claim", 3)
    if call != "stat":
        assert not life.taken() & {*WAITING}
        assert {life.record(number).name for number in WAITING} <= life.files("outbox")
    life.disk.lift()
    life.wait_for(*EVERY)
    for number in (*WAITING, *ENDED, SERVER):
        life.is_whole(number)
    life.all_came_once(agent)
    assert life.files("rejected") == set()


@pytest.mark.parametrize("call", ["opendir", "readdir"])
@pytest.mark.parametrize("below", ["outbox", "kept"])
def test_a_directory_that_cannot_be_listed_is_tried_again(
    life: Life, call: str, below: str
) -> None:
    life.disk.fail(call, life.state / below, errno.EIO)
    agent = life.agent()
    agent.wait_for("registered")
    life.goes_on()
    life.disk.lift()
    life.wait_for(*EVERY)
    for number in (*WAITING, *ENDED, SERVER):
        life.is_whole(number)
    life.all_came_once(agent)


@pytest.mark.parametrize("call", ["open", "read", "stat"])
def test_a_document_that_cannot_be_read_costs_the_document_only(life: Life, call: str) -> None:
    for number, each in zip(WAITING, ERRNOS):
        life.disk.fail(call, life.record(number, ".document"), each)
    agent = life.agent()
    life.wait_for(*{*WAITING, KILL_ALL} - {NOT_NOW})
    life.goes_on()
    life.disk.lift()
    life.wait_for(*EVERY)
    for number in WAITING:
        if call == "stat":
            assert life.manager.outcome(number)["status"] == "succeeded"
        elif number == NOT_NOW:
            life.is_whole(number)
        else:
            life.lacks_its_document(number)
            assert list(
                life.state.rglob(life.record(number, ".document").name)
            ), "it is not deleted"
    for number in (*ENDED, SERVER):
        life.is_whole(number)
    life.all_came_once(agent)


@pytest.mark.parametrize("call", ["open", "read", "stat"])
def test_a_document_that_cannot_be_read_when_it_is_sent_costs_the_document_only(
    life: Life, call: str
) -> None:
    life.manager.takes = lambda number: number not in WAITING
    agent = life.agent()
    for number in WAITING:
        agent.wait_for("not delivered yet", task_id=number)
    for number, each in zip(WAITING, ERRNOS):
        life.disk.fail(call, life.record(number, ".document"), each)
    life.manager.takes = lambda number: True
    life.wait_for(*EVERY - {NOT_NOW})
    life.manager.wait_for_calls("claim", 3)
    life.disk.lift()
    life.wait_for(*EVERY)
    for number in WAITING:
        if call == "stat" or number == NOT_NOW:
            assert life.manager.outcome(number)["status"] == "succeeded"
        else:
            life.lacks_its_document(number)
    life.all_came_once(agent)


@pytest.mark.parametrize("call", ["open", "stat"])
def test_output_of_a_child_that_cannot_be_read_costs_that_output_at_most(
    life: Life, call: str
) -> None:
    for number, each in zip(ENDED, ERRNOS):
        life.disk.fail(call, life.state / "children" / f"{number}.*", each)
    life.disk.fail(call, life.state / "children" / f"{SERVER}.*", errno.EIO)
    agent = life.agent()
    # The Manager has a document of the server, which nothing without one takes the place of.
    silent = frozenset({SERVER}) if call == "stat" else frozenset()
    life.wait_for(*{*WAITING, KILL_ALL, SERVER} - silent)
    life.goes_on()
    life.disk.lift()
    life.wait_for(*{*EVERY} - silent)
    for number in WAITING:
        life.is_whole(number)
    for number in {*ENDED, SERVER} - silent:
        outcome = life.manager.outcome(number)
        assert outcome["status"] == "succeeded" or outcome["stderr"] == INTERRUPTED
    life.all_came_once(agent, silent)


def test_children_that_cannot_be_listed_cost_their_output_at_most(life: Life) -> None:
    life.disk.fail("opendir", life.state / "children", errno.EIO)
    agent = life.agent()
    life.wait_for(*WAITING, KILL_ALL, SERVER)
    life.goes_on()
    life.disk.lift()
    life.wait_for(*EVERY)
    for number in WAITING:
        life.is_whole(number)
    life.all_came_once(agent)


def test_what_is_damaged_and_cannot_be_set_aside_is_not_deleted(life: Life) -> None:
    damaged, journal = life.record(WAITING[0]), life.state / "journal"
    torn = damaged.read_bytes()[:-40], journal.read_bytes()[:-30]
    damaged.write_bytes(torn[0])
    journal.write_bytes(torn[1])
    document = life.record(WAITING[0], ".document").read_bytes()
    for below in ("rejected/*", "rejected"):
        life.disk.fail("open write link rename fsync", life.state / below, errno.EIO)
    agent = life.agent()
    life.wait_for(*WAITING[1:], KILL_ALL)
    life.goes_on()
    found = [path.read_bytes() for path in life.state.rglob("*") if path.is_file()]
    assert torn[0] in found and document in found
    assert any(content.startswith(torn[1]) for content in found)
    life.disk.lift()
    # Now, or when it is started again.
    agent.wait_for("the state directory can be written again")
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    agent = life.agent()
    agent.wait_for("registered")
    until(
        lambda: {damaged.name, life.record(WAITING[0], ".document").name} <= life.files("rejected")
    )
    aside = [path.read_bytes() for path in (life.state / "rejected").iterdir()]
    assert torn[0] in aside and document in aside
    assert any(content.startswith(torn[1]) for content in aside)
    life.ends_well(agent)


@pytest.mark.parametrize(
    ("calls", "which"), [("open write link rename fsync", ""), ("rename", "*.document")]
)
def test_a_result_that_is_refused_for_good_is_kept_until_it_can_be_set_aside(
    life: Life, calls: str, which: str
) -> None:
    number = WAITING[0]
    life.manager.refuses = lambda each: each == number
    for below in (which or "*", ""):
        life.disk.fail(calls, life.state / "rejected" / below, errno.EIO)
    agent = life.agent()
    life.wait_for(*EVERY - {number})
    agent.wait_for("the state directory cannot be written")
    life.goes_on()
    life.disk.lift()
    agent.wait_for("the state directory can be written again")
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    life.agent().wait_for("registered")
    names = {life.record(number, suffix).name for suffix in (".result", ".document", ".answer")}
    until(lambda: names <= life.files("rejected"))
    assert number not in life.taken()


@pytest.mark.parametrize(
    ("call", "where", "number"),
    [
        ("write", "outbox/*", errno.EDQUOT),
        ("open", "outbox/*", errno.EROFS),
        ("fsync", "outbox/*", errno.EIO),
        ("close", "outbox/*.new", errno.EDQUOT),
        ("rename", "outbox/*", errno.EIO),
        ("fsync", "outbox", errno.EIO),
        ("write", "journal*", errno.EDQUOT),
        ("fdatasync", "journal", errno.EIO),
    ],
)
def test_what_cannot_be_written_waits_in_memory_and_is_written_later(
    fresh: Life, call: str, where: str, number: int
) -> None:
    manager, journal = fresh.manager, fresh.state / "journal"
    agent = fresh.agent()
    manager.tasks.append(task(1, "kill_all"))
    assert manager.outcome(1)["status"] == "succeeded"
    before = journal.stat().st_ino
    fresh.disk.fail(call, fresh.state / where, number)
    manager.tasks.append(task(2, "kill_all"))
    assert manager.outcome(2)["status"] == "succeeded"
    agent.wait_for("the state directory cannot be written")
    manager.tasks.append(client(3, free_port(), bytes=1000))
    assert manager.outcome(3)["result"]["agent"]["error_class"] == "state_full"
    fresh.goes_on()
    fresh.disk.lift()
    agent.wait_for("the state directory can be written again")
    if call in ("write", "fdatasync") and "journal" in where:
        # What the disk did not take may be anywhere in the file, and no later sync brings it.
        assert journal.stat().st_ino != before
    manager.tasks.append(client(4, fresh.port, bytes=1000))
    fresh.is_whole_at_last(4)
    fresh.ends_well(agent)
    assert fresh.files("rejected") == fresh.files("children") == set()


@pytest.mark.parametrize("where", ["children/*", "outbox/*", "journal*"])
def test_a_lack_of_descriptors_is_not_blamed_on_the_directory(fresh: Life, where: str) -> None:
    manager = fresh.manager
    agent = fresh.agent()
    manager.wait_for_calls("claim", 2)
    fresh.disk.fail("open", fresh.state / where, errno.EMFILE)
    manager.tasks.append(client(1, fresh.port, bytes=1000))
    outcome = manager.outcome(1)
    if where == "children/*":
        assert "Too many open files" in outcome["stderr"]
        assert outcome["result"]["agent"]["error_class"] != "state_full"
    else:
        fresh.is_whole(1)
    fresh.disk.lift()
    manager.tasks.append(client(2, fresh.port, bytes=1000))
    fresh.is_whole_at_last(2)
    assert not [line for line in agent.lines if "cannot be written" in line["message"]]
    fresh.ends_well(agent)


def test_a_disk_without_hard_links_is_as_good_as_any(fresh: Life) -> None:
    fresh.disk.fail("link", "*", errno.EMLINK)
    manager, port = fresh.manager, free_port()
    agent = fresh.agent()
    manager.tasks.append(task(1, "iperf_server_start", port=port))
    assert manager.outcome(1)["status"] == "succeeded"
    manager.tasks.append(client(2, port, bytes=1000))
    fresh.is_whole_at_last(2)
    manager.wait_for(lambda: len(manager.taken[1]) == 2)
    assert manager.outcome(1)["result"]["end"]
    manager.tasks.append(task(3, "kill_all"))
    assert manager.outcome(3)["status"] == "succeeded"
    fresh.ends_well(agent)
    assert fresh.disk.met()
    assert not [line for line in agent.lines if line["level"] == "error"]
    assert fresh.files("rejected") == fresh.files("children") == fresh.files("kept") == set()


ALL = " ".join(CALLS)


def with_tests(fresh: Life) -> AgentProcess:
    """An agent that has a server, 1, and a test of another one, 2."""
    agent = fresh.agent()
    fresh.manager.tasks.append(task(1, "iperf_server_start", port=free_port()))
    fresh.manager.wait_for(lambda: fresh.manager.taken[1])
    fresh.manager.tasks.append(client(2, fresh.port, time=2))
    agent.wait_for("client started", task_id=2)
    fresh.manager.wait_for_calls("claim", 2)
    return agent


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_is_gone_for_a_while_costs_what_it_had_to_take(
    fresh: Life, number: int
) -> None:
    manager = fresh.manager
    agent = with_tests(fresh)
    fresh.disk.fail(ALL, fresh.state / "*", number)
    assert manager.outcome(2)["status"] in ("succeeded", "failed")
    manager.tasks.append(client(3, fresh.port, bytes=1000))
    assert manager.outcome(3)["status"] == "failed"
    fresh.goes_on()
    fresh.disk.lift()
    agent.wait_for("the state directory can be written again")
    manager.tasks.append(client(4, fresh.port, bytes=1000))
    fresh.is_whole_at_last(4)
    manager.tasks.append(task(5, "kill_all"))
    assert manager.outcome(5)["status"] == "succeeded"
    assert manager.outcome(1)["status"] == "succeeded"
    assert [len(manager.taken[each]) for each in (2, 3, 4, 5)] == [1, 1, 1, 1]
    fresh.ends_well(agent)
    assert fresh.files("rejected") == set()


def test_a_disk_that_takes_nothing_and_does_not_even_fail_stops_no_heartbeat(fresh: Life) -> None:
    manager = fresh.manager
    agent = with_tests(fresh)
    fresh.disk.hold("write fsync fdatasync rename link", fresh.state / "*")
    manager.tasks.append(client(3, fresh.port, bytes=1000))
    until(fresh.disk.met)
    manager.wait_for_calls("heartbeat", 15)
    fresh.disk.lift()
    fresh.is_whole_at_last(2)
    fresh.is_whole_at_last(3)
    manager.tasks.append(task(4, "kill_all"))
    assert manager.outcome(4)["status"] == "succeeded"
    fresh.ends_well(agent)
    assert fresh.files("rejected") == fresh.files("children") == set()


def test_a_slow_fsync_delays_no_test(fresh: Life) -> None:
    manager = fresh.manager
    agent = fresh.agent()
    manager.wait_for_calls("claim", 2)
    fresh.disk.hold("fdatasync fsync", fresh.state / "journal*")
    manager.tasks.append(task(1, "iperf_server_start", port=free_port()))
    manager.wait_for(lambda: "started" in manager.calls())
    assert manager.outcome(1)["result"]["started"] is True
    fresh.goes_on()
    assert fresh.disk.met()
    claims = [each for each in manager.requests if each.call == "claim"]
    assert (
        claims[-1].headers[IDEMPOTENCY_KEY] == manager.keys[1]
    ), "no claim before it is on the disk"
    fresh.disk.lift()
    manager.wait_for_calls("claim", 2)
    manager.tasks.append(task(2, "kill_all"))
    manager.wait_for(lambda: manager.taken[2])
    fresh.ends_well(agent)


def test_a_slow_fsync_delays_no_end_of_a_test(fresh: Life, tmp_path: Path) -> None:
    """A deadline, a cancel and a kill_all are obeyed, and heard of, while the journal waits."""
    manager = fresh.manager
    agent = fresh.agent(IPERF3_PATH=stand_in(tmp_path / "hangs", "exec sleep 1000"))

    def running(number: int, **payload: Any) -> int:
        # No connection is ever seen of it, so that it counts as begun after 13 s.
        payload |= {"connect_timeout_ms": 100}
        manager.tasks.append(client(number, free_port(), **payload))
        return int(agent.wait_for("client started", task_id=number)["pid"])

    late, canceled, killed = running(1, time=1), running(2, time=60), running(3, time=60)
    manager.wait_for_calls("claim", 2)
    fresh.disk.hold("fdatasync fsync", fresh.state / "journal*")
    held = running(4, time=60)
    until(fresh.disk.met)
    manager.canceled.append(2)
    assert "canceled" in manager.outcome(2)["stderr"]
    assert manager.outcome(1)["result"]["agent"]["error_class"] == "timed_out"
    assert not is_running(late) and not is_running(canceled)
    assert is_running(killed) and is_running(held)
    fresh.disk.lift()
    manager.wait_for_calls("claim", 2)
    fresh.disk.hold("fdatasync fsync", fresh.state / "journal*")
    manager.tasks.append(task(5, "kill_all"))
    assert manager.outcome(5)["status"] == "succeeded"
    for number in (3, 4):
        assert manager.outcome(number)["result"]["agent"]["error_class"] == "killed"
    assert not is_running(killed) and not is_running(held)
    fresh.disk.lift()
    fresh.ends_well(agent)


@pytest.mark.parametrize("call", ["write", "fdatasync fsync"])
def test_a_task_that_was_just_claimed_survives_a_stop_while_the_disk_is_slow(
    fresh: Life, call: str
) -> None:
    manager = fresh.manager
    agent = fresh.agent()
    manager.wait_for_calls("claim", 2)
    fresh.disk.hold(call, fresh.state / "journal*")
    manager.tasks.append(client(1, free_port(), client_delay_seconds=3600))
    until(fresh.disk.met)
    agent.signal(signal.SIGTERM)
    agent.wait_for("agent stops")
    # Longer than the agent gives to a last claim.
    gevent.sleep(2)
    fresh.disk.lift()
    assert agent.exit_code() == 0
    again = fresh.agent()
    assert manager.outcome(1)["status"] == "failed"
    manager.wait_for_calls("claim", 2)
    fresh.ends_well(again)
    assert len(manager.taken[1]) == 1


def test_two_signals_at_once_lose_no_task_whose_answer_has_come(fresh: Life) -> None:
    manager = fresh.manager
    agent = fresh.agent()
    manager.wait_for_calls("claim", 2)
    fresh.disk.hold("write", fresh.state / "journal*")
    manager.tasks.append(client(1, free_port(), client_delay_seconds=3600))
    until(fresh.disk.met)
    agent.signal(signal.SIGTERM)
    agent.signal(signal.SIGINT)
    agent.wait_for("agent stops")
    fresh.disk.lift()
    assert agent.exit_code() == 0
    again = fresh.agent()
    assert manager.outcome(1)["result"]["agent"]["error_class"] == "interrupted"
    manager.wait_for_calls("claim", 2)
    fresh.ends_well(again)
    # The answer to the first run's own delivery may not have been waited for.
    assert len({request.headers[IDEMPOTENCY_KEY] for request in manager.taken[1]}) == 1


def test_a_claim_whose_answer_was_not_waited_for_is_made_again(fresh: Life) -> None:
    manager, answer = fresh.manager, fresh.manager.answer

    def answer_no_claim(request: Request) -> bytes:
        if request.call == "claim":
            gevent.sleep(60)
        return answer(request)

    manager.answer = answer_no_claim
    agent = fresh.agent()
    manager.wait_for(lambda: "claim" in manager.calls())
    agent.signal(signal.SIGTERM)
    agent.signal(signal.SIGINT)
    assert agent.exit_code(5) == 0
    manager.answer = answer
    again = fresh.agent()
    manager.wait_for_calls("claim", 1)
    keys = [each.headers[IDEMPOTENCY_KEY] for each in manager.requests if each.call == "claim"]
    assert len(keys) > 1 and len(set(keys)) == 1
    fresh.ends_well(again)


def test_a_lack_of_descriptors_at_the_start_costs_no_document(life: Life) -> None:
    life.disk.fail("open opendir", life.state / "children*", errno.EMFILE)
    agent = life.agent()
    agent.wait_for("what the previous run left cannot be read now")
    life.goes_on()
    life.disk.lift()
    life.wait_for(*EVERY)
    for number in (*WAITING, *ENDED, SERVER):
        life.is_whole(number)
    life.all_came_once(agent)
    assert life.files("rejected") == set()
