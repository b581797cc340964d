"""A Manager that is away: everything that an agent has for it waits for the same moment."""

from pathlib import Path

import pytest

from agent.errors import ManagerAway
from agent.protocol import Outcome, Report
from tests.support.clock import Clock, install_clock
from tests.support.faulty_manager import FaultyManager, Request, raw_reply, well
from tests.support.harness import until
from tests.support.outbox import Post, post_to
from tests.support.sockets import MakeManager

RESULTS = 5
ASKED_TO_WAIT = raw_reply(b"", 503, Retry_After="60")


@pytest.fixture(name="post")
def fixture_post(faulty: MakeManager, directory: Path) -> Post:
    """An outbox whose Manager went away: one call has failed, so that the agent must ask."""
    post = post_to(faulty(well), directory)
    post.manager.registers = False
    post.client.failures += 1
    return post


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the registration and of the outbox."""
    return install_clock(monkeypatch, "manager.registration.time", "outbox.queue.gevent")


def registers(manager: FaultyManager) -> int:
    return manager.calls().count("register")


def test_no_caller_registers_before_the_wait_is_over(clock: Clock, post: Post) -> None:
    post.manager.answer = lambda _: ASKED_TO_WAIT
    for passed in range(3):
        with pytest.raises(ManagerAway) as caught:
            post.registration.confirm()
        assert caught.value.again_in == 60 - passed * 20
        clock.now += 20
    assert registers(post.manager) == 1


def test_each_failed_registration_starts_a_new_wait(clock: Clock, post: Post) -> None:
    answers = [b"", b""]
    post.manager.answer = lambda request: answers.pop() if answers else well(request)
    for asked in (1, 2):
        with pytest.raises(ManagerAway) as caught:
            post.registration.confirm()
        assert caught.value.again_in <= asked
        assert registers(post.manager) == asked
        clock.now += caught.value.again_in + 0.01
    assert post.registration.confirm() == post.registration.life
    post.registration.confirm()
    assert registers(post.manager) == 3


def test_many_results_do_not_register_more_often_than_one(clock: Clock, post: Post) -> None:
    moments: list[float] = []

    def away(request: Request) -> bytes:
        moments.append(clock.now)
        return b"" if len(moments) < 5 else well(request)

    post.manager.answer = away
    for task_id in range(RESULTS):
        post.put(task_id, Outcome("failed", Report()))
    post.manager.wait_for(lambda: post.manager.calls().count("result") == RESULTS)
    assert registers(post.manager) == 5
    assert moments[4:] == [moments[4]] * (1 + RESULTS), "all go as soon as the Manager is back"


def test_a_flush_registers_at_once(post: Post) -> None:
    post.manager.answer = lambda _: ASKED_TO_WAIT
    post.put(1, Outcome("failed", Report()))
    until(lambda: post.client.failures == 2)
    post.manager.answer = well
    assert post.outbox.flush(5)


def test_the_callers_own_back_off_begins_when_the_manager_is_back(clock: Clock, post: Post) -> None:
    """After a long absence a first 503 costs a second at most, and not half a minute."""
    answers = [b"", b"", b"", None, raw_reply(b"", 503)]
    moments = []

    def answer(request: Request) -> bytes:
        moments.append(clock.now)
        said = answers.pop(0) if answers else None
        return well(request) if said is None else said

    post.manager.answer = answer
    post.put(1, Outcome("failed", Report()))
    post.manager.wait_for(lambda: post.manager.calls().count("result") == 2)
    assert post.manager.calls() == ["register"] * 4 + ["result", "register", "result"]
    assert 0 < moments[-1] - moments[4] <= 1
