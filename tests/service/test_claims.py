"""The claim loop: when it asks, with which key, and when it does not."""

import gevent
import pytest
from structlog.testing import capture_logs

from agent.errors import AgentUnknown
from tests.support.claim_loop import NOTHING, ClaimAnswers, claimed, claiming, claims
from tests.support.faulty_manager import raw_reply, reply, well
from tests.support.harness import free_port
from tests.support.sockets import MakeManager, client_of

HELD_NOTHING = reply({"task": None}, Preference_Applied="wait")


def test_without_a_task_it_asks_again_after_the_interval(faulty: MakeManager) -> None:
    answers = ClaimAnswers()
    manager = faulty(answers)
    with claiming(manager, interval=0.3):
        manager.wait_for(lambda: len(answers.times) == 4)
    gaps = [after - before for before, after in zip(answers.times, answers.times[1:], strict=False)]
    assert 0.3 * 0.8 <= min(gaps)
    assert max(gaps) < 0.3 * 1.2 * 3


def test_after_a_minute_without_a_task_it_asks_at_a_third_of_the_rate(
    faulty: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.service.claims.QUIET_AFTER", 0.0)
    answers = ClaimAnswers()
    manager = faulty(answers)
    with claiming(manager, interval=0.2):
        manager.wait_for(lambda: len(answers.times) == 2)
    assert answers.times[1] - answers.times[0] >= 0.2 * 3 * 0.8


def test_after_a_task_it_asks_again_at_once(faulty: MakeManager) -> None:
    manager = faulty(ClaimAnswers(*[claimed(number) for number in range(1, 6)]))
    with claiming(manager, interval=60):
        manager.wait_for(lambda: manager.calls().count("result") == 5, timeout=5)
    results = [request.json()["status"] for request in manager.requests if request.call == "result"]
    assert results == ["succeeded"] * 5
    assert len(claims(manager)) == 6


def test_after_a_claim_that_was_held_it_asks_again_at_once(
    faulty: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.service.claims.HELD_AT_LEAST", 0.2)
    manager = faulty(ClaimAnswers(HELD_NOTHING, delay=0.25))
    with claiming(manager, interval=60):
        manager.wait_for(lambda: len(claims(manager)) == 2, timeout=5)


def test_a_manager_that_claims_to_hold_and_answers_at_once_is_polled(faulty: MakeManager) -> None:
    answers = ClaimAnswers(*[HELD_NOTHING] * 9)
    manager = faulty(answers)
    with claiming(manager, interval=0.5):
        manager.wait_for(lambda: len(answers.times) == 2)
    assert answers.times[1] - answers.times[0] >= 0.5 * 0.8


def test_a_slow_manager_that_does_not_hold_claims_is_polled(
    faulty: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.service.claims.HELD_AT_LEAST", 0.2)
    answers = ClaimAnswers(delay=0.25)
    manager = faulty(answers)
    with claiming(manager, interval=0.5):
        manager.wait_for(lambda: len(answers.times) == 2)
    assert answers.times[1] - answers.times[0] >= 0.25 + 0.5 * 0.8


def test_a_claims_key_stays_until_it_has_obtained_a_task(faulty: MakeManager) -> None:
    manager = faulty(ClaimAnswers(NOTHING, b"", claimed(1), claimed(2)))
    with claiming(manager):
        manager.wait_for(lambda: len(claims(manager)) >= 6)
    keys = [request.headers["idempotency-key"] for request in claims(manager)]
    assert len(set(keys[:3])) == 1
    assert len({keys[0], keys[3], keys[4]}) == 3
    assert keys[4] == keys[5]


def test_a_task_that_is_in_hand_is_not_run_twice(faulty: MakeManager) -> None:
    late = {"server_ip": "127.0.0.1", "port": free_port(), "client_delay_seconds": 60}
    task = claimed(1, "iperf_client_run", **late)
    manager = faulty(ClaimAnswers(task, task, NOTHING, claimed(2)))
    with claiming(manager) as loop:
        manager.wait_for(lambda: manager.calls().count("result") == 2)
    assert loop.post.journal.unsettled() == [], "nor reported again by the agent's next life"
    results = [request.path for request in manager.requests if request.call == "result"]
    assert sorted(results) == ["/v1/agent/tasks/1/result", "/v1/agent/tasks/2/result"]


def test_a_manager_that_is_away_is_left_alone_for_as_long_as_it_says(faulty: MakeManager) -> None:
    answers = ClaimAnswers(raw_reply(b"", 503, Retry_After="1"))
    manager = faulty(answers)
    with claiming(manager):
        manager.wait_for(lambda: len(answers.times) == 2)
    assert 1 <= answers.times[1] - answers.times[0] < 3


def test_an_outage_ends_when_the_claim_was_made_that_the_manager_then_held(
    faulty: MakeManager,
) -> None:
    held = 1.0
    answers = ClaimAnswers(raw_reply(b"", 500), HELD_NOTHING, delay=held)
    manager = faulty(answers)
    with capture_logs() as said, claiming(manager):
        manager.wait_for(lambda: len(answers.times) == 3)
    (over,) = [line for line in said if line["event"] == "claims are answered again"]
    failed_at, made_at = answers.times[0] + held, answers.times[1]
    assert over["failures"] == 1
    assert over["seconds"] < made_at - failed_at + held / 2


def test_claims_pause_while_they_may_not_be_made_and_go_on_afterwards(faulty: MakeManager) -> None:
    manager, clock = faulty(well), client_of(faulty(well))
    with claiming(manager) as loop:
        manager.wait_for(lambda: len(claims(manager)) == 2)
        loop.may_claim.clear()
        clock.claim("a claim in flight may end")
        seen = len(manager.requests)
        for _ in range(10):
            gevent.sleep(0.02)
            clock.send_heartbeat("10.0.0.1", [])
        assert len(manager.requests) <= seen + 1
        loop.may_claim.set()
        manager.wait_for(lambda: len(manager.requests) > seen + 3)


def test_a_loop_that_is_stopped_while_it_pauses_makes_no_claim_any_more(
    faulty: MakeManager,
) -> None:
    manager = faulty(well)
    with claiming(manager) as loop:
        loop.may_claim.clear()
        gevent.sleep(0)
    assert manager.requests == []


def test_a_refused_key_pauses_the_claims_and_does_not_end_them(faulty: MakeManager) -> None:
    manager, clock = faulty(lambda _: raw_reply(b"", 403)), client_of(faulty(well))
    with claiming(manager) as loop:
        manager.wait_for(lambda: manager.requests)
        for _ in range(12):
            gevent.sleep(0.1)
            clock.send_heartbeat("10.0.0.1", [])
        assert manager.calls() == ["claim"]
        assert not loop.greenlet.ready()


def test_an_unknown_agent_ends_the_claims_with_that_failure(faulty: MakeManager) -> None:
    manager = faulty(lambda _: reply({"error": "not_found"}, 404))
    with claiming(manager) as loop:
        assert loop.supervisor.failed.wait(5)
        assert isinstance(loop.supervisor.failure, AgentUnknown)
