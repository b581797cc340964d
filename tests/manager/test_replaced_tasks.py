"""Real agents whose Manager gives the number of a task to another one."""

import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.support.faulty_disk import POSSIBLE, FaultyDisk
from tests.support.faulty_manager import Request, raw_reply, reply, well
from tests.support.harness import AgentProcess, free_port, iperf3_server, is_running, until
from tests.support.impatient import impatient_agent
from tests.support.lone_agent import lone_agent
from tests.support.restored_manager import FIRST, SECOND, RestoredManager
from tests.support.sockets import MakeManager

pytestmark = pytest.mark.process

SERVER, CLIENT = "iperf_server_start", "iperf_client_run"
INTERNAL_ERROR = raw_reply(b"{}", 500)
# What the outcome of a task says that was stopped for another one's sake.
REPLACED = "the Manager gave its number to another task"


@pytest.fixture(name="manager")
def fixture_manager() -> Iterator[RestoredManager]:
    """A Manager that was restored."""
    manager = RestoredManager()
    yield manager
    manager.stop()


def rejected(directory: Path, suffix: str = "result") -> list[str]:
    """What lies in rejected/."""
    files = sorted((directory / "state" / "rejected").glob(f"*.{suffix}"))
    return [file.read_text() for file in files]


def refuse_results(request: Request) -> bytes | None:
    return INTERNAL_ERROR if request.call == "result" else None


def start_client_in_its_delay(
    manager: RestoredManager, agent: AgentProcess, port: int, created_at: str | None = FIRST
) -> None:
    given = {"server_ip": "127.0.0.1", "port": port, "client_delay_seconds": 60}
    manager.give(CLIENT, created_at, **given)
    agent.wait_for("task claimed", task_id=7, type=CLIENT)


def start_server(manager: RestoredManager, agent: AgentProcess, port: int) -> None:
    manager.give(SERVER, port=port)
    agent.wait_for("server listens")
    manager.wait_for(lambda: manager.sent("result"))


def start_client_in_its_test(manager: RestoredManager, agent: AgentProcess, port: int) -> None:
    manager.give(CLIENT, server_ip="127.0.0.1", port=port, time=60, bitrate=10**7)
    manager.wait_for(lambda: manager.sent("started"))


START = {
    "delay": start_client_in_its_delay,
    "server": start_server,
    "test": start_client_in_its_test,
}


@pytest.mark.parametrize("old", START)
def test_a_new_task_with_an_old_number_replaces_the_one_that_runs(
    manager: RestoredManager, tmp_path: Path, old: str
) -> None:
    port, fresh = free_port(), free_port()
    with (
        iperf3_server(port) if old == "test" else nullcontext(),
        lone_agent(manager.url, tmp_path) as agent,
    ):
        START[old](manager, agent, port)
        before = len(manager.sent("result"))
        manager.give(SERVER, SECOND, port=fresh)
        manager.wait_for(lambda: len(manager.sent("result")) > before)
        result = manager.sent("result")[-1]
        assert (result["status"], result["result"]["port"]) == ("succeeded", fresh)
        until(lambda: rejected(tmp_path))
        assert len(rejected(tmp_path)) == 1 and REPLACED in rejected(tmp_path)[0]
        assert rejected(tmp_path, "answer") == [REPLACED.replace("its", "the task's")]
        seen = len(manager.sent("heartbeat"))
        manager.wait_for(lambda: len(manager.sent("heartbeat")) > seen + 2)
        assert manager.running() == [(7, fresh)]
        manager.cancel = [7]
        agent.wait_for("server ended", why="canceled at the Manager")
        manager.wait_for(lambda: len(manager.sent("result")) == before + 2)
        manager.cancel = []
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
    assert len(rejected(tmp_path)) == 1
    assert manager.calls().count("register") == 1


def test_a_result_that_waits_is_never_said_of_the_new_task(
    manager: RestoredManager, tmp_path: Path
) -> None:
    later = raw_reply(b"{}", 500, Retry_After="2")
    manager.refuse = lambda request: later if request.call == "result" else None
    with lone_agent(manager.url, tmp_path) as agent:
        manager.give(CLIENT, server_ip="127.0.0.1", port=free_port(), max_retries=0)
        manager.wait_for(lambda: manager.sent("result"))
        manager.refuse = lambda request: None
        manager.give("kill_all", SECOND)
        until(lambda: rejected(tmp_path))
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
    assert len(rejected(tmp_path)) == 1 and '"refused"' in rejected(tmp_path)[0]
    assert [body["status"] for body in manager.sent("result")] == ["failed", "succeeded"]


def test_a_task_of_another_type_is_another_task_though_it_was_created_at_the_same_moment(
    manager: RestoredManager, tmp_path: Path
) -> None:
    fresh = free_port()
    with lone_agent(manager.url, tmp_path) as agent:
        start_client_in_its_delay(manager, agent, free_port())
        manager.give(SERVER, FIRST, port=fresh)
        manager.wait_for(lambda: manager.sent("result"))
        assert manager.sent("result")[0]["result"]["port"] == fresh
        until(lambda: rejected(tmp_path))
    assert REPLACED in rejected(tmp_path)[0]


@pytest.mark.parametrize(("old", "new"), [(None, None), (None, SECOND), (FIRST, None)])
def test_without_a_moment_the_number_and_the_type_are_taken_at_their_word(
    manager: RestoredManager, tmp_path: Path, old: str | None, new: str | None
) -> None:
    with lone_agent(manager.url, tmp_path) as agent:
        start_client_in_its_delay(manager, agent, free_port(), old)
        manager.give(CLIENT, new, server_ip="127.0.0.1", port=free_port(), max_retries=0)
        agent.wait_for("the claim brought a task that is in hand already", task_id=7)
        manager.cancel = [7]
        manager.wait_for(lambda: manager.sent("result"))
        assert manager.sent("result")[0]["result"]["agent"]["error_class"] == "killed"
    assert rejected(tmp_path) == []


def test_a_task_that_is_claimed_again_in_another_notation_is_the_same(
    manager: RestoredManager, tmp_path: Path
) -> None:
    with lone_agent(manager.url, tmp_path) as agent:
        start_client_in_its_delay(manager, agent, free_port())
        manager.give(CLIENT, "2026-01-02 03:04:05", server_ip="127.0.0.1", port=1)
        agent.wait_for("the claim brought a task that is in hand already", task_id=7)
    assert rejected(tmp_path) == []


@pytest.mark.parametrize("old", START)
def test_a_killed_agent_still_knows_which_of_two_tasks_of_a_number_is_which(
    manager: RestoredManager, tmp_path: Path, old: str
) -> None:
    port, fresh = free_port(), free_port()
    with iperf3_server(port) if old == "test" else nullcontext():
        with lone_agent(manager.url, tmp_path) as agent:
            START[old](manager, agent, port)
            before = len(manager.sent("result"))
            manager.refuse = refuse_results
            manager.give(SERVER, SECOND, port=fresh)
            agent.wait_for("server listens", port=fresh)
            agent.signal(signal.SIGKILL)
        tried = len(manager.sent("result"))
        manager.refuse = lambda request: None
        with lone_agent(manager.url, tmp_path) as agent:
            manager.wait_for(lambda: len(manager.sent("result")) > tried)
            until(lambda: rejected(tmp_path))
            agent.signal(signal.SIGTERM)
            assert agent.exit_code() == 0
    new = manager.sent("result")[before:]
    # Its start may have been saved, or is lost with the agent: both are the new task's.
    assert {body["result"].get("port", fresh) for body in new} == {fresh}
    # A kill between the move and the journal's line makes the old one's outcome twice.
    assert all(FIRST in each for each in rejected(tmp_path))


def test_what_a_killed_agent_owes_of_an_old_task_is_set_aside_when_the_number_is_anothers(
    manager: RestoredManager, tmp_path: Path
) -> None:
    """Restored while no agent ran; the 200 names the new task, which nobody has claimed yet."""
    with lone_agent(manager.url, tmp_path) as agent:
        start_client_in_its_delay(manager, agent, free_port())
        agent.signal(signal.SIGKILL)
    manager.tasks[7] = {"id": 7, "type": CLIENT, "created_at": SECOND}
    with lone_agent(manager.url, tmp_path):
        until(lambda: rejected(tmp_path))
        fresh = free_port()
        manager.give(SERVER, SECOND, port=fresh)
        manager.wait_for(lambda: len(manager.sent("result")) == 2)
        assert manager.sent("result")[1]["result"]["port"] == fresh
    assert "interrupted" in rejected(tmp_path)[0]
    assert f"another task 7, created at {SECOND}" in rejected(tmp_path, "answer")[0]


@pytest.mark.parametrize("named", [{"created_at": SECOND}, {"type": SERVER}])
def test_a_result_whose_200_names_another_task_is_set_aside(
    manager: RestoredManager, tmp_path: Path, named: dict[str, Any]
) -> None:
    manager.refuse = lambda request: (
        reply({**manager.tasks[7], **named}) if request.call == "result" else None
    )
    with lone_agent(manager.url, tmp_path) as agent:
        manager.give("kill_all", FIRST)
        agent.wait_for("not sent: set aside", task_id=7)
        until(lambda: rejected(tmp_path))
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
    assert len(rejected(tmp_path)) == 1
    assert "the Manager has another task 7" in rejected(tmp_path, "answer")[0]
    assert len(manager.sent("result")) == 1


def test_an_answer_about_another_number_is_no_answer(
    manager: RestoredManager, tmp_path: Path
) -> None:
    """A proxy mixed two answers up: the Manager may never have seen the result."""
    mixed_up = [{"id": 8}]
    manager.refuse = lambda request: (
        reply(mixed_up.pop()) if request.call == "result" and mixed_up else None
    )
    with lone_agent(manager.url, tmp_path) as agent:
        manager.give("kill_all", FIRST)
        manager.wait_for(lambda: len(manager.sent("result")) == 2)
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
    assert rejected(tmp_path) == []


def test_a_200_to_started_that_names_another_task_stops_what_runs(
    manager: RestoredManager, tmp_path: Path
) -> None:
    manager.refuse = lambda request: (
        reply({**manager.tasks[7], "created_at": SECOND}) if request.call == "started" else None
    )
    port = free_port()
    with iperf3_server(port), lone_agent(manager.url, tmp_path) as agent:
        start_client_in_its_test(manager, agent, port)
        until(lambda: rejected(tmp_path))
        agent.wait_for("client ended")
        assert REPLACED in rejected(tmp_path)[0]
        assert manager.sent("result") == []
        assert len(manager.sent("started")) == 1


@pytest.mark.skipif(not POSSIBLE, reason="needs Linux and gcc")
def test_a_term_while_the_journal_waits_for_the_disk_loses_no_task(
    manager: RestoredManager, tmp_path: Path
) -> None:
    disk = FaultyDisk(tmp_path / "disk")
    with lone_agent(manager.url, tmp_path, **disk.variables) as agent:
        agent.wait_for("registered")
        manager.wait_for(lambda: "claim" in manager.calls())
        disk.hold("fdatasync fsync", str(tmp_path / "state" / "journal*"))
        start_client_in_its_delay(manager, agent, free_port())
        agent.signal(signal.SIGTERM)
        agent.wait_for("agent stops")
        disk.lift()
        assert agent.exit_code() == 0
    (result,) = manager.sent("result")
    assert "the agent was stopped (SIGTERM)" in result["stderr"]
    with lone_agent(manager.url, tmp_path, "--exit-after-idle", "0.3") as agent:
        assert agent.exit_code() == 0
    assert len(manager.sent("result")) == 1, "and none is reported twice"


def replace_record(manager: RestoredManager, record: dict[str, Any]) -> int:
    """Answer nothing well for long enough, and then know the agent by this record.

    Returns how often it was asked for the record until then.
    """
    seen = len(manager.sent("heartbeat"))
    manager.refuse = lambda request: INTERNAL_ERROR
    manager.wait_for(lambda: len(manager.sent("heartbeat")) > seen + 8)
    manager.refuse = lambda request: reply(record) if request.call == "register" else None
    return manager.calls().count("register")


@pytest.mark.parametrize(
    "record", [{"id": 9, "first_registered": FIRST}, {"id": 1, "first_registered": SECOND}]
)
def test_what_runs_for_another_record_of_the_agent_is_stopped_and_its_results_go_nowhere(
    manager: RestoredManager, tmp_path: Path, record: dict[str, Any]
) -> None:
    known = {"id": 1, "first_registered": FIRST}
    manager.refuse = lambda request: reply(known) if request.call == "register" else None
    with impatient_agent(manager.url, tmp_path) as agent:
        agent.wait_for("registered")
        start_server(manager, agent, free_port())
        pid = manager.sent("result")[0]["result"]["pid"]
        asked = replace_record(manager, record)
        agent.wait_for("the Manager was replaced: the tasks in hand belong to the previous one")
        agent.wait_for("server ended", why="the Manager was replaced")
        until(lambda: rejected(tmp_path))
        assert not is_running(pid)
        assert len(manager.sent("result")) == 1
        fresh = free_port()
        manager.give(SERVER, SECOND, port=fresh)
        manager.wait_for(lambda: len(manager.sent("result")) == 2)
        assert manager.sent("result")[1]["result"]["port"] == fresh
    assert manager.calls().count("register") == asked + 1


def test_the_same_record_after_a_silence_stops_nothing(
    manager: RestoredManager, tmp_path: Path
) -> None:
    with impatient_agent(manager.url, tmp_path) as agent:
        agent.wait_for("registered")
        start_server(manager, agent, free_port())
        pid = manager.sent("result")[0]["result"]["pid"]
        asked = replace_record(manager, {"id": 1, "first_registered": None})
        manager.wait_for(lambda: manager.calls().count("register") == asked + 1)
        seen = len(manager.sent("heartbeat"))
        manager.wait_for(lambda: len(manager.sent("heartbeat")) > seen + 5)
        assert is_running(pid)
    assert manager.calls().count("register") == asked + 1, "once for one silence"


def test_an_idle_agent_registers_once_and_not_for_a_claim_or_a_result(
    manager: RestoredManager, tmp_path: Path
) -> None:
    with lone_agent(manager.url, tmp_path) as agent:
        agent.wait_for("registered")
        manager.wait_for(lambda: len(manager.sent("heartbeat")) > 8)
        manager.give("kill_all", FIRST)
        manager.wait_for(lambda: len(manager.sent("result")) == 1)
        manager.give("kill_all", SECOND)
        manager.wait_for(lambda: len(manager.sent("result")) == 2)
    assert manager.calls().count("register") == 1
    assert manager.calls().count("claim") > 8


def test_a_result_for_another_managers_url_is_set_aside(
    manager: RestoredManager, faulty: MakeManager, tmp_path: Path
) -> None:
    manager.refuse = refuse_results
    with lone_agent(manager.url, tmp_path) as agent:
        manager.give("kill_all")
        manager.wait_for(lambda: manager.sent("result"))
        agent.signal(signal.SIGKILL)
    other = faulty(well)
    with lone_agent(other.url, tmp_path):
        until(lambda: rejected(tmp_path))
        assert "result" not in other.calls()
    assert rejected(tmp_path, "answer") == [
        "the task is of another Manager, or of another record there"
    ]
