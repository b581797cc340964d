"""The Manager's life: its task 7 is not the task 7 of the one that was there before it."""

from pathlib import Path
from typing import Any

import pytest

from agent.error_classes import ErrorClass
from agent.outbox import delivery as delivery_module
from agent.protocol import Life, Outcome, Report
from agent.protocol.messages import AgentRecord
from agent.state.journal import Journal
from agent.state.spool import Spool
from tests.support.clock import Clock
from tests.support.faulty_manager import Request, raw_reply, reply, well
from tests.support.harness import Bench, free_port, is_running, until
from tests.support.lone_agent import lone_agent, passed_on
from tests.support.outbox import Post, claimed, post_to
from tests.support.sockets import MakeManager

URL = "http://manager"
BORN = "2026-01-02T03:04:05"
PLAIN = Outcome("failed", Report(error_class=ErrorClass.REFUSED), exit_code=1, stderr="refused")


def record(agent_id: int = 1, first_registered: str | None = BORN) -> dict[str, Any]:
    """What a Manager says of agent a1."""
    return {"id": agent_id, "name": "a1", "first_registered": first_registered}


def life(first_registered: str | None, agent_id: int = 1, url: str = URL) -> Life:
    return Life.of(url, AgentRecord(agent_id, first_registered))


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05",
        "2026-01-02T03:04:05.9",
        "2026-01-02T03:04:05.123456",
        "2026-01-02 03:04:05.123456+00:00",
        "2026-01-02T03:04:05Z",
    ],
)
def test_one_moment_is_one_life_however_a_database_writes_it(written: str) -> None:
    assert life(written) == life(BORN)


@pytest.mark.parametrize(
    "other",
    [
        life("2026-01-02T03:04:06"),
        life(None),
        life(BORN, agent_id=2),
        life(BORN, url="http://other"),
    ],
)
def test_another_moment_agent_or_address_is_another_life(other: Life) -> None:
    assert other != life(BORN)


def test_a_manager_that_says_no_moment_has_one_life() -> None:
    assert life(None) == life("")


def delivered(faulty: MakeManager, directory: Path, now: dict[str, Any]) -> tuple[Post, int]:
    """Deliver a result to a Manager that answered a registration with `record()`, and answers the
    next one with `now`; the post, and how often the result was sent.

    The first answer to the result is lost, which makes an agent ask who the Manager is.
    """

    def answer(request: Request) -> bytes:
        if request.call == "register":
            return reply(now)
        return b"" if manager.calls().count("result") == 1 else well(request)

    manager = faulty(answer)
    post = post_to(manager, directory, start=False)
    manager.registers = False
    post.registration.life = life(BORN, url=manager.url)
    post.journal.record_claim(post.claimed(7))
    post.put(7, PLAIN)
    post.outbox.start()
    assert post.outbox.flush(10)
    return post, manager.calls().count("result")


def test_a_result_is_sent_again_to_the_same_life(faulty: MakeManager, directory: Path) -> None:
    same = record(first_registered="2026-01-02 03:04:05.000")
    post, times = delivered(faulty, directory, same)
    assert (times, post.files()) == (2, [])


@pytest.mark.parametrize(
    "other", [record(agent_id=2), record(first_registered="2026-01-02T03:04:06"), record(1, None)]
)
def test_a_result_of_another_life_goes_to_nobody_and_is_set_aside(
    faulty: MakeManager, directory: Path, other: dict[str, Any]
) -> None:
    post, times = delivered(faulty, directory, other)
    assert times == 1
    assert post.files() == ["rejected/000000001.answer", "rejected/000000001.result"]
    answer = (post.state.rejected / "000000001.answer").read_text()
    assert answer == "the task is another Manager's, or an earlier installation's"
    assert post.journal.unsettled() == Journal(post.state).unsettled() == []


def test_a_result_goes_to_nobody_else_though_no_call_has_failed(
    faulty: MakeManager, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy was pointed at another Manager, which knows the agent as well."""
    monkeypatch.setattr(delivery_module, "RESULT_SURE_FOR", 0)
    who = [record(1)]

    def answer(request: Request) -> bytes:
        return reply(who[0]) if request.call == "register" else well(request)

    manager = faulty(answer)
    post = post_to(manager, directory)
    manager.registers = False
    post.registration.life = life(BORN, url=manager.url)
    post.put(7, PLAIN)
    assert post.outbox.flush(5)
    who[0] = record(2)
    post.put(8, PLAIN)
    assert post.outbox.flush(5)
    assert manager.calls() == ["register", "result", "register"]
    assert post.files() == ["rejected/000000002.answer", "rejected/000000002.result"]


def test_the_registration_is_confirmed_again_after_a_while(
    faulty: MakeManager, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("agent.manager.registration.time", clock)
    post = post_to(faulty(well), directory)
    asked = post.client.register
    times: list[float] = []

    def counted(address: str, system: str) -> AgentRecord:
        times.append(clock.now)
        return asked(address, system)

    def confirmed_after(seconds: float, within: float | None = None) -> int:
        clock.now += seconds
        post.registration.confirm(within)
        return len(times)

    monkeypatch.setattr(post.client, "register", counted)
    assert [confirmed_after(seconds) for seconds in (0, 1, 46)] == [
        0,
        0,
        0,
    ], "47 s are not too long"
    assert confirmed_after(26) == 1, "73 s are"
    assert [confirmed_after(4, within=5), confirmed_after(1, within=5)] == [1, 1]
    assert [confirmed_after(1, within=5), confirmed_after(0, within=5)] == [2, 2]
    assert confirmed_after(0.1, within=0) == 3


def test_a_result_for_another_address_is_set_aside_by_the_next_run_of_the_agent(
    faulty: MakeManager, directory: Path
) -> None:
    post = post_to(faulty(well), directory, start=False)
    elsewhere = claimed(7, life=Life("http://elsewhere", 1, ""))
    post.outbox.put(elsewhere, PLAIN)
    (parcel,) = Spool(post.state).load()
    assert parcel.claimed.life.manager_url == "http://elsewhere"
    post.outbox.start()
    assert post.outbox.flush(5)
    assert post.manager.calls() == []
    assert post.files() == ["rejected/000000001.answer", "rejected/000000001.result"]


def test_started_is_not_said_to_another_life(faulty: MakeManager, directory: Path) -> None:
    post = post_to(faulty(well), directory, start=False)
    post.outbox.send_started(claimed(7, life=Life("http://elsewhere", 1, "")), 77)
    post.outbox.start()
    assert post.outbox.flush(5)
    assert post.manager.calls() == []


def test_what_runs_for_a_manager_that_was_replaced_is_stopped_and_its_results_go_nowhere(
    todays_bench: Bench, faulty: MakeManager, tmp_path: Path
) -> None:
    bench = todays_bench
    replaced: list[bool] = []

    def answer(request: Request) -> bytes:
        if request.call == "register" and replaced:
            return reply(record(agent_id=9))
        if request.call == "heartbeat" and len(replaced) == 1:
            replaced.append(True)
            return raw_reply(b"<html>", 502)
        if request.call == "claim" and replaced:
            return reply({"task": None})
        return passed_on(request, bench.manager.url)

    manager = faulty(answer)
    with lone_agent(manager.url, tmp_path) as agent:
        server = bench.ended(bench.task("iperf_server_start", port=free_port()))
        assert server.status == "succeeded", server.error
        pid = bench.result(server)["pid"]
        seen = manager.calls().count("result")
        replaced.append(True)
        agent.wait_for("the Manager was replaced: the tasks in hand belong to the previous one")
        agent.wait_for("server ended", why="the Manager was replaced")
        rejected = tmp_path / "state" / "rejected"
        until(lambda: list(rejected.glob("*.answer")))
        assert len(list(rejected.glob("*.result"))) == 1
        assert not is_running(pid)
        assert manager.calls().count("result") == seen
