"""The claim loop: when it asks, with which key, and when it does not."""

import os
from collections.abc import Callable
from pathlib import Path

import gevent
import msgspec
import pytest
from structlog.testing import capture_logs

from agent.errors import AgentUnknown
from agent.registry import CANCELED
from tests.support.claim_loop import (
    NOTHING,
    ClaimAnswers,
    Claiming,
    claimed,
    claiming,
    claims,
)
from tests.support.clock import Clock, install_clock
from tests.support.faulty_manager import Request, raw_reply, reply, well
from tests.support.harness import free_port, until
from tests.support.outbox import silent_for
from tests.support.sockets import MakeManager, client_of

CLOCKED = ("service.claims", "manager.registration", "logs.outage")
HELD_NOTHING = reply({"task": None}, Preference_Applied="wait")


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the claim loop, of the gate before it, and of what it logs."""
    return install_clock(monkeypatch, *(f"{each}.time" for each in CLOCKED))


def test_without_a_task_it_asks_again_after_the_interval(faulty: MakeManager, clock: Clock) -> None:
    answers = ClaimAnswers(clock)
    manager = faulty(answers)
    with claiming(manager, clock, interval=1):
        manager.wait_for(lambda: len(answers.times) >= 40)
    assert 0.8 <= min(answers.gaps()[:39]) < 0.9 < 1.1 < max(answers.gaps()[:39]) <= 1.2


def test_after_a_minute_without_a_task_it_asks_at_a_third_of_the_rate(
    faulty: MakeManager, clock: Clock
) -> None:
    answers = ClaimAnswers(clock)
    manager = faulty(answers)
    began = clock.now
    with claiming(manager, clock, interval=1):
        manager.wait_for(lambda: len(answers.times) >= 100)
    for asked_at, gap in zip(answers.times, answers.gaps(), strict=False):
        assert gap >= 3 * 0.8 if asked_at - began >= 60 else gap <= 1.2


def test_after_a_task_it_asks_again_at_once(faulty: MakeManager, clock: Clock) -> None:
    answers = ClaimAnswers(clock, *[claimed(number) for number in range(1, 6)])
    manager = faulty(answers)
    with claiming(manager, clock, interval=60):
        manager.wait_for(lambda: manager.calls().count("result") == 5)
        manager.wait_for(lambda: len(answers.times) > 6)
    results = [request.json()["status"] for request in manager.requests if request.call == "result"]
    assert results == ["succeeded"] * 5
    assert answers.gaps()[:5] == [0] * 5
    assert answers.gaps()[5] >= 60 * 0.8


def test_the_first_task_of_a_replaced_manager_is_its_own(faulty: MakeManager, clock: Clock) -> None:
    """The gate registers before the claim, and finds that the Manager is another one."""
    answers = ClaimAnswers(clock, claimed(7))

    def answer(request: Request) -> bytes:
        if request.call == "register":
            return reply({"id": 99, "first_registered": "2030-01-01T00:00:00Z"})
        return answers(request)

    manager = faulty(answer)
    manager.registers = True
    with claiming(manager, clock, interval=60) as loop:
        manager.registers = False
        silent_for(loop.post, clock, 15)
        manager.wait_for(lambda: "result" in manager.calls())
        assert loop.post.ledger.spool.rejected == 0


def test_after_a_claim_that_was_held_it_asks_again_at_once(
    faulty: MakeManager, clock: Clock
) -> None:
    answers = ClaimAnswers(clock, *[HELD_NOTHING] * 9, delay=1.0)
    manager = faulty(answers)
    with claiming(manager, clock, interval=60):
        manager.wait_for(lambda: len(answers.times) >= 9)
    assert answers.gaps()[:8] == [1.0] * 8


def test_a_manager_that_claims_to_hold_and_answers_too_soon_is_polled(
    faulty: MakeManager, clock: Clock
) -> None:
    answers = ClaimAnswers(clock, *[HELD_NOTHING] * 9, delay=0.9)
    manager = faulty(answers)
    with claiming(manager, clock, interval=1):
        manager.wait_for(lambda: len(answers.times) >= 9)
    assert min(answers.gaps()[:8]) >= 0.9 + 0.8


def test_a_slow_manager_that_does_not_hold_claims_is_polled(
    faulty: MakeManager, clock: Clock
) -> None:
    answers = ClaimAnswers(clock, delay=1.5)
    manager = faulty(answers)
    with claiming(manager, clock, interval=1):
        manager.wait_for(lambda: len(answers.times) >= 9)
    assert min(answers.gaps()[:8]) >= 1.5 + 0.8


def test_the_claim_key_stays_the_same_until_it_has_obtained_a_task(
    faulty: MakeManager, clock: Clock
) -> None:
    manager = faulty(ClaimAnswers(clock, NOTHING, b"", claimed(1), claimed(2)))
    with claiming(manager, clock):
        manager.wait_for(lambda: len(claims(manager)) >= 6)
    keys = [request.headers["idempotency-key"] for request in claims(manager)]
    assert len(set(keys[:3])) == 1
    assert len({keys[0], keys[3], keys[4]}) == 3
    assert keys[4] == keys[5]


@pytest.mark.process
def test_a_task_that_is_in_hand_is_not_run_twice(faulty: MakeManager, clock: Clock) -> None:
    late = {"server_ip": "127.0.0.1", "port": free_port(), "client_delay_seconds": 60}
    task = claimed(1, "iperf_client_run", **late)
    manager = faulty(ClaimAnswers(clock, task, task, NOTHING, claimed(2)))
    with claiming(manager, clock) as loop:
        manager.wait_for(lambda: manager.calls().count("result") == 2)
    assert loop.post.journal.unsettled() == [], "nor reported again by the agent's next run"
    results = [request.path for request in manager.requests if request.call == "result"]
    assert sorted(results) == ["/v1/agent/tasks/1/result", "/v1/agent/tasks/2/result"]


@pytest.mark.process
def test_a_claim_that_brings_the_same_task_again_and_again_is_made_ever_less_often(
    faulty: MakeManager, clock: Clock
) -> None:
    late = {"server_ip": "127.0.0.1", "port": free_port(), "client_delay_seconds": 60}
    answers = ClaimAnswers(clock, *[claimed(1, "iperf_client_run", **late)] * 12)
    manager = faulty(answers)
    with claiming(manager, clock, interval=1) as loop:
        manager.registers = False
        manager.wait_for(lambda: len(answers.times) >= 11)
        (entry,) = loop.post.registry.entries()
        entry.stop.order(*CANCELED)
        manager.wait_for(lambda: "result" in manager.calls())
    gaps = answers.gaps()
    assert gaps[0] == 0, "the first one brought it"
    assert all(gap <= bound for gap, bound in zip(gaps[1:7], (1, 2, 4, 8, 16, 30), strict=True))
    assert gaps[7:10] == [30] * 3
    assert set(manager.calls()) <= {"claim", "result"}, "nor does it register"
    keys = [request.headers["idempotency-key"] for request in claims(manager)]
    assert len(set(keys[:11])) == 11


@pytest.mark.process
def test_each_new_key_is_on_the_disk_before_it_is_used(
    faulty: MakeManager, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power cut would lose the task that it has obtained. Also after a repeated task."""
    late = {"server_ip": "127.0.0.1", "port": free_port(), "client_delay_seconds": 60}
    task = claimed(1, "iperf_client_run", **late)
    ended = reply({"task": {"id": 3, "type": "kill_all", "status": "canceled"}})
    answers = ClaimAnswers(clock, task, task, ended, claimed(2))
    synced, known = [b""], []

    def watched(sync: Callable[[int], None]) -> Callable[[int], None]:
        def wrapper(descriptor: int) -> None:
            sync(descriptor)
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.is_file():
                synced.append(path.read_bytes())

        return wrapper

    def answer(request: Request) -> bytes:
        if request.call == "claim":
            key = request.headers["idempotency-key"].encode()
            known.append(any(key in content for content in synced))
        return answers(request)

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    manager = faulty(answer)
    with claiming(manager, clock):
        manager.wait_for(lambda: manager.calls().count("result") == 2)
    assert known[1:4] == [True] * 3


def test_a_task_that_has_ended_at_the_manager_is_not_run_and_the_next_one_is(
    faulty: MakeManager, clock: Clock
) -> None:
    ended = reply({"task": {"id": 1, "type": "kill_all", "status": "canceled"}})
    manager = faulty(ClaimAnswers(clock, ended, claimed(2)))
    with claiming(manager, clock):
        manager.wait_for(lambda: "result" in manager.calls())
    (result,) = [request for request in manager.requests if request.call == "result"]
    assert result.path == "/v1/agent/tasks/2/result"


def test_a_manager_that_is_away_is_left_alone_for_as_long_as_it_says(
    faulty: MakeManager, clock: Clock
) -> None:
    answers = ClaimAnswers(clock, raw_reply(b"", 503, Retry_After="17"))
    manager = faulty(answers)
    with claiming(manager, clock):
        manager.wait_for(lambda: len(answers.times) >= 2)
    assert answers.gaps()[0] == 17


def test_claims_that_fail_come_at_the_pace_of_a_back_off_until_one_is_answered(
    faulty: MakeManager, clock: Clock
) -> None:
    away = raw_reply(b"", 502)
    answers = ClaimAnswers(clock, *[away] * 9, NOTHING, away)
    manager = faulty(answers)
    with claiming(manager, clock):
        manager.wait_for(lambda: len(answers.times) >= 12)
    gaps = answers.gaps()
    assert all(gap <= bound for gap, bound in zip(gaps[:6], (1, 2, 4, 8, 16, 30), strict=True))
    assert gaps[6:9] == [30] * 3
    assert gaps[10] <= 1


def test_an_outage_ends_when_the_first_held_claim_is_sent_and_not_when_it_is_answered(
    faulty: MakeManager, clock: Clock
) -> None:
    held = 20.0
    answers = ClaimAnswers(clock, raw_reply(b"", 500), HELD_NOTHING, delay=held)
    manager = faulty(answers)
    with capture_logs() as said, claiming(manager, clock):
        manager.wait_for(lambda: len(answers.times) >= 3)
    (over,) = [line for line in said if line["event"] == "claims are answered again"]
    failed_at, made_at = answers.times[0] + held, answers.times[1]
    assert over["failures"] == 1
    assert over["seconds"] == round(made_at - failed_at, 1)


def test_claims_pause_while_the_manager_wants_none_and_resume_afterwards(
    faulty: MakeManager, clock: Clock
) -> None:
    manager, other = faulty(well), client_of(faulty(well))
    with claiming(manager, clock) as loop:
        manager.wait_for(lambda: len(claims(manager)) >= 2)
        loop.may_claim.clear()
        other.claim("a claim in flight may end")
        seen = len(manager.requests)
        for _ in range(10):
            other.send_heartbeat("10.0.0.1", [])
        assert len(manager.requests) <= seen + 1
        loop.may_claim.set()
        manager.wait_for(lambda: len(manager.requests) > seen + 3)


def test_a_loop_that_is_stopped_during_a_pause_makes_no_more_claims(
    faulty: MakeManager, clock: Clock
) -> None:
    manager = faulty(well)
    with claiming(manager, clock) as loop:
        loop.may_claim.clear()
        gevent.sleep(0)
    assert manager.requests == []


def test_a_refused_key_pauses_the_claims_and_does_not_end_them(
    faulty: MakeManager, clock: Clock
) -> None:
    answers = ClaimAnswers(clock, *[reply({"error": "forbidden"}, 403)] * 3)
    manager = faulty(answers)
    with claiming(manager, clock) as loop:
        manager.wait_for(lambda: len(answers.times) >= 4)
        assert not loop.greenlet.ready()
    assert answers.gaps()[:3] == [30] * 3


def test_an_unknown_agent_ends_the_claims_with_that_failure(
    faulty: MakeManager, clock: Clock
) -> None:
    manager = faulty(lambda _: reply({"error": "not_found"}, 404))
    with claiming(manager, clock) as loop:
        assert loop.supervisor.failed.wait(5)
        assert isinstance(loop.supervisor.failure, AgentUnknown)


def test_an_answer_without_its_end_is_none_and_the_claim_is_made_again(
    faulty: MakeManager, clock: Clock
) -> None:
    """Nothing says how long it is, so that only its JSON can tell."""
    whole = ClaimAnswers(clock, claimed(1))
    content = claimed(1).partition(b"\r\n\r\n")[2]
    cut = [content[:-3]]

    def answer(request: Request) -> bytes:
        if request.call != "claim" or not cut:
            return whole(request)
        request.socket.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + cut.pop())
        return b""

    manager = faulty(answer)
    with claiming(manager, clock):
        manager.wait_for(lambda: "result" in manager.calls())
    keys = [request.headers["idempotency-key"] for request in claims(manager)]
    assert keys[0] == keys[1]
    results = [request.json()["status"] for request in manager.requests if request.call == "result"]
    assert results == ["succeeded"]


@pytest.mark.parametrize("call", ["_write", "sync"])
def test_a_bug_in_the_writing_of_a_claim_ends_the_agent(
    faulty: MakeManager, clock: Clock, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(f"agent.state.journal.Journal.{call}", fail)
    manager = faulty(ClaimAnswers(clock, claimed(1)))
    with claiming(manager, clock) as loop:
        assert loop.supervisor.failed.wait(10)
        assert "ZeroDivisionError" in str(loop.supervisor.failure)
        monkeypatch.undo()


def test_a_task_is_of_the_record_for_which_it_was_claimed(
    faulty: MakeManager, clock: Clock
) -> None:
    """A claim may be held while the agent registers with another Manager."""
    asked: list[Claiming] = []

    def answer(request: Request) -> bytes:
        if request.call == "claim" and asked:
            registration = asked.pop().post.registration
            assert registration.origin
            registration.origin = msgspec.structs.replace(registration.origin, agent_id=99)
            return claimed(7)
        return NOTHING if request.call == "claim" else well(request)

    manager = faulty(answer)
    with claiming(manager, clock) as loop:
        asked.append(loop)
        until(lambda: loop.post.ledger.spool.rejected)
        assert not [request for request in manager.requests if request.call == "result"]
