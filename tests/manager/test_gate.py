"""The gate: one outage for claims, `started` and results, and none for heartbeats."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import gevent
import pytest

from agent.errors import AgentUnknown, KeyRefused, ManagerAway, ManagerError, ManagerUnavailable
from agent.manager.registration import Gate
from agent.outbox.queue import SLOTS
from agent.protocol import Outcome, Report
from tests.support.answering import ASK, PAGE
from tests.support.claim_loop import Claiming
from tests.support.clock import Clock, FastClock, install_clock
from tests.support.faulty_manager import FaultyManager, raw_reply, reply, well
from tests.support.harness import until
from tests.support.outbox import Post, post_to, silent_for
from tests.support.sockets import MakeManager

PLAIN = Outcome("failed", Report(), exit_code=1)
GATED = ("claim", "started", "result")
AWAY = {
    "no answer": b"",
    "401": reply({"detail": {"error": "invalid_agent_key"}}, 401),
    "429": raw_reply(PAGE, 429, Retry_After="300"),
    "503": raw_reply(PAGE, 503, Retry_After="300"),
}
NOT_AWAY = {
    "500": reply({"detail": "Internal Server Error"}, 500),
    "502": raw_reply(PAGE, 502),
    "404 page": raw_reply(PAGE, 404),
    "400 page": raw_reply(PAGE, 400),
    "200 page": raw_reply(PAGE, 200),
    "409": raw_reply(PAGE, 409),
}
WAITING = 200


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the gate, which stands still unless a test moves it."""
    return install_clock(monkeypatch, "manager.registration.time")


@pytest.fixture(name="post")
def fixture_post(faulty: MakeManager, directory: Path) -> Post:
    """An outbox that is registered; what it registers from now on is counted."""
    post = post_to(faulty(well), directory)
    post.manager.registers = False
    return post


def ask(post: Post, call: str = "claim") -> None:
    """Make one call through the gate."""
    post.gate.attempt(partial(ASK[call], post.client))


def failing(post: Post, call: str = "claim") -> float:
    """Make one call, which fails; returns for how long the gate is closed."""
    with pytest.raises(ManagerError):
        ask(post, call)
    return post.gate.closed_for


def set_off(loop: Claiming, call: str) -> None:
    """Let the agent make that call. Each is about a task of its own, or about none."""
    if call == "claim":
        loop.may_claim.set()
    elif call == "started":
        loop.post.send_started(5, 77)
    else:
        loop.post.put(6, PLAIN)


@pytest.fixture(name="idle")
def fixture_idle(faulty: MakeManager, directory: Path, clock: Clock) -> Claiming:
    """A claim loop that may not claim yet, and an outbox without a message."""
    loop = Claiming(faulty(well), Clock(), 60, directory)
    loop.may_claim.clear()
    loop.post.manager.registers = False
    return loop


@pytest.mark.parametrize("call", GATED)
@pytest.mark.parametrize("answer", AWAY)
def test_an_outage_that_one_call_meets_pauses_the_other_two(
    idle: Claiming, answer: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without an answer, the pause may be next to nothing.
    monkeypatch.setattr("agent.timing.random.uniform", lambda low, high: high)
    manager = idle.post.manager
    manager.answer = lambda _: AWAY[answer]
    set_off(idle, call)
    until(lambda: idle.post.gate.closed_for)
    assert manager.calls() == [call]
    idle.stop.set()  # its next wait would take no time at all
    for other in GATED:
        if other != call:
            set_off(idle, other)
    gevent.sleep(0.1)
    assert manager.calls() == [call], "and nothing registers"


@pytest.mark.parametrize("call", GATED)
@pytest.mark.parametrize("answer", NOT_AWAY)
def test_any_other_answer_pauses_that_message_alone(idle: Claiming, answer: str, call: str) -> None:
    post = idle.post
    bad = [NOT_AWAY[answer]]
    post.manager.answer = lambda request: (
        bad[0] if request.call == call and bad else well(request)
    )
    set_off(idle, call)
    post.manager.wait_for(lambda: call in post.manager.calls())
    assert post.gate.closed_for == 0
    for other in GATED:
        if other != call:
            set_off(idle, other)
    post.manager.wait_for(lambda: set(GATED) <= set(post.manager.calls()))
    assert post.gate.closed_for == 0
    assert "register" not in post.manager.calls()
    bad.clear()
    idle.stop.set()
    assert post.outbox.flush(5)


@pytest.mark.parametrize("status", [401, 429, 503])
def test_heartbeats_neither_close_the_gate_nor_wait_for_it(
    post: Post, clock: Clock, status: int
) -> None:
    post.manager.answer = lambda _: reply({"error": "no"}, status, Retry_After="300")
    for _ in range(3):
        with pytest.raises(ManagerError):
            ASK["heartbeat"](post.client)
    assert post.gate.closed_for == 0
    assert failing(post) > 0
    with pytest.raises(ManagerError):
        ASK["heartbeat"](post.client)
    assert post.manager.calls() == [*["heartbeat"] * 3, "claim", "heartbeat"]


@pytest.mark.parametrize("call", GATED)
def test_the_gate_stays_closed_for_as_long_as_the_manager_says(
    post: Post, clock: Clock, call: str
) -> None:
    post.manager.answer = lambda _: raw_reply(PAGE, 503, Retry_After="60")
    assert failing(post, call) == 60
    clock.now += 59
    assert post.gate.closed_for == 1
    clock.now += 1
    assert post.gate.closed_for == 0


def test_a_refused_key_closes_the_gate_for_30_s_each_time(post: Post, clock: Clock) -> None:
    post.manager.answer = lambda _: AWAY["401"]
    for _ in range(7):
        assert failing(post) == 30
        clock.now += 30
    post.manager.answer = lambda _: b""
    assert failing(post) <= 1, "it did not use the back-off up"


def test_the_back_off_of_an_outage_grows_and_begins_anew_after_an_answer(
    post: Post, clock: Clock
) -> None:
    for good in (well, lambda _: NOT_AWAY["500"], lambda _: NOT_AWAY["409"]):
        post.manager.answer = lambda _: b""
        for bound in (1, 2, 4, 8, 16, 30, 30):
            pause = failing(post)
            assert 0 < pause <= bound + 1e-6
            clock.now += pause
        assert pause == pytest.approx(30), "after seven failures"
        post.manager.answer = good
        if good is well:
            ask(post)
        else:
            assert failing(post, "result") == 0
        post.manager.answer = lambda _: b""
        clock.now += 1
        assert failing(post) <= 1
        post.manager.answer = well
        ask(post)


def at_once(gate: Gate, calls: list[Callable[[], object]]) -> None:
    """Make these calls side by side; all of them fail."""

    def attempt(call: Callable[[], object]) -> None:
        with pytest.raises(ManagerError):
            gate.attempt(call)

    gevent.joinall([gevent.spawn(attempt, call) for call in calls], raise_error=True)


def failing_later(clock: Clock, seconds: float, error: ManagerError) -> Callable[[], object]:
    """A call under way that fails once all have begun, when so much time has passed."""

    def call() -> None:
        gevent.sleep(0.01)
        clock.now += seconds
        raise error

    return call


def test_calls_that_are_under_way_when_the_gate_closes_do_not_advance_the_back_off(
    post: Post, clock: Clock
) -> None:
    at_once(post.gate, [failing_later(clock, 0.001, ManagerAway("503")) for _ in range(20)])
    assert post.gate.closed_for <= 1
    clock.now += post.gate.closed_for
    post.manager.answer = lambda _: b""
    assert failing(post) <= 2, "that was the second failure, and not the 21st"


def test_a_call_under_way_may_ask_for_a_longer_wait_and_none_shortens_it(
    post: Post, clock: Clock
) -> None:
    asked = [ManagerAway("503", 10), ManagerAway("503", 60), ManagerAway("503", 5)]
    at_once(post.gate, [failing_later(clock, 1, error) for error in asked])
    # The one that asked for 60 s failed a second before the last.
    assert post.gate.closed_for == 59


def test_a_flush_opens_the_gate_once(post: Post, clock: Clock) -> None:
    post.manager.answer = lambda _: AWAY["503"]
    post.put(1, PLAIN)
    until(lambda: post.gate.closed_for)
    post.put(2, PLAIN)
    assert not post.outbox.flush(0.2)
    assert len(post.manager.calls()) in (2, 3), "both, unless one of them closed it again"
    assert post.gate.closed_for == 300


def test_a_flush_delivers_what_waited_for_the_gate(post: Post, clock: Clock) -> None:
    post.manager.answer = lambda _: AWAY["503"]
    post.put(1, PLAIN)
    until(lambda: post.gate.closed_for)
    for task_id in range(2, 9):
        post.put(task_id, PLAIN)
    post.manager.answer = well
    assert post.outbox.flush(5)
    assert post.manager.calls() == ["result"] * 9


@pytest.mark.parametrize(
    ("answer", "most"),
    [
        # Three openings, with each of the outbox's slots at each of them.
        (AWAY["401"], 3 * SLOTS),
        # Six draws of the back-off that may be next to nothing, and then 30 s each time.
        (raw_reply(PAGE, 503), 9 * SLOTS),
    ],
    ids=["401", "503"],
)
def test_many_results_call_a_manager_that_is_away_hardly_more_often_than_one(
    post: Post, answer: bytes, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FastClock(10)
    for module in ("manager.registration.time", "outbox.queue.gevent"):
        monkeypatch.setattr(f"agent.{module}", clock)
    post.manager.answer = lambda _: answer
    began = clock.monotonic()
    for task_id in range(WAITING):
        post.put(task_id, PLAIN)
    ended = clock.monotonic()
    until(lambda: clock.monotonic() >= began + 60)
    post.outbox.stop()
    assert ended < began + 60, "all of them were there in time"
    assert 1 <= len(post.manager.requests) <= most
    assert set(post.manager.calls()) == {"result"}, "nothing registers"
    assert len(post.outbox) == WAITING


def test_all_go_as_soon_as_the_manager_is_back(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FastClock(20)
    for module in ("manager.registration.time", "outbox.queue.gevent"):
        monkeypatch.setattr(f"agent.{module}", clock)
    post.manager.answer = lambda _: b""
    for task_id in range(50):
        post.put(task_id, PLAIN)
    post.manager.answer = well
    until(lambda: not len(post.outbox))
    done = [request.path for request in post.manager.requests]
    assert len(set(done)) == 50


def test_an_unknown_agent_does_not_close_the_gate(post: Post, clock: Clock) -> None:
    post.manager.answer = lambda _: reply({"error": "agent_disabled"}, 404)
    with pytest.raises(AgentUnknown):
        ask(post)
    assert post.gate.closed_for == 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [(AWAY["401"], KeyRefused), (AWAY["503"], ManagerAway), (NOT_AWAY["500"], ManagerUnavailable)],
)
def test_before_a_call_comes_the_registration_that_is_due_and_its_failure_is_the_calls(
    post: Post, monkeypatch: pytest.MonkeyPatch, answer: bytes, error: type[ManagerError]
) -> None:
    clock = install_clock(monkeypatch, "manager.registration.time")
    silent_for(post, clock, 15)
    post.manager.answer = lambda _: answer
    with pytest.raises(error):
        ask(post)
    assert post.manager.calls() == ["register"], "the call itself is not made"
    post.manager.answer = well
    ask(post)
    ask(post, "result")
    assert post.manager.calls() == ["register"] * 2 + ["claim", "result"]


def registers(manager: FaultyManager) -> int:
    return manager.calls().count("register")


def test_many_calls_at_once_make_one_registration(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = install_clock(monkeypatch, "manager.registration.time")
    silent_for(post, clock, 15)
    for task_id in range(20):
        post.put(task_id, PLAIN)
    assert post.outbox.flush(5)
    assert registers(post.manager) == 1
