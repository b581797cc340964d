"""The outbox: every message reaches the Manager once, in the order of its task."""

from pathlib import Path

import gevent
import msgspec
import pytest
from gevent.event import Event

from agent.errors import AgentUnknown, ErrorClass
from agent.outbox import delivery
from agent.outbox.queue import LARGE_SLOTS, LONG_SLOTS, SLOTS
from agent.protocol import Outcome, Report
from tests.support.clock import Clock, install_clock
from tests.support.faulty_manager import Request, raw_reply, reply, well
from tests.support.harness import until
from tests.support.outbox import post_to, task_of, with_document
from tests.support.sockets import MakeManager

SUCCEEDED = Outcome("succeeded", Report(version="1"), answer={"killed": True, "count": 2})
FAILED = Outcome("failed", Report(error_class=ErrorClass.REFUSED), exit_code=1, stderr="refused")
UNAVAILABLE = raw_reply(b"<html>", 503)


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of outbox and gate; neither their pauses nor `flush` take real time."""
    return install_clock(monkeypatch, "outbox.queue.gevent", "manager.registration.time")


def test_an_outcome_without_a_document_is_sent_as_it_is(
    faulty: MakeManager, directory: Path
) -> None:
    post = post_to(faulty(well), directory)
    post.put(7, SUCCEEDED)
    post.put(8, FAILED)
    assert post.outbox.flush(5)
    assert {request.path: request.json() for request in post.manager.requests} == {
        "/v1/agent/tasks/7/result": {
            "status": "succeeded",
            "exit_code": 0,
            "stderr": "",
            "result": {"killed": True, "count": 2, "agent": {"version": "1"}},
        },
        "/v1/agent/tasks/8/result": {
            "status": "failed",
            "exit_code": 1,
            "stderr": "refused",
            "result": {"agent": {"error_class": "refused"}},
        },
    }


def test_the_messages_of_a_task_go_in_order_and_one_at_a_time(
    faulty: MakeManager, directory: Path
) -> None:
    in_flight: set[bytes] = set()
    together = []

    def answer(request: Request) -> bytes:
        in_flight.add(request.body)
        gevent.sleep(0.02)
        together.append(len(in_flight))
        in_flight.remove(request.body)
        return well(request)

    post = post_to(faulty(answer), directory)
    post.send_started(7, 77)
    post.manager.wait_for(lambda: post.manager.requests)
    for count in range(3):
        post.put(7, Outcome("succeeded", Report(), answer={"count": count}))
    assert post.outbox.flush(5)
    assert post.manager.calls() == ["started"] + ["result"] * 3
    sent = [request.json()["result"]["count"] for request in post.manager.requests[1:]]
    assert sent == [0, 1, 2]
    assert together == [1] * 4


def test_the_messages_of_different_tasks_go_side_by_side(
    faulty: MakeManager, directory: Path
) -> None:
    others_done = Event()

    def answer(request: Request) -> bytes:
        if task_of(request) == 1:
            assert others_done.wait(5)
        elif len(post.manager.requests) == 4:
            others_done.set()
        return well(request)

    post = post_to(faulty(answer), directory)
    for task_id in (1, 2, 3, 4):
        post.put(task_id, SUCCEEDED)
    assert post.outbox.flush(4)


@pytest.mark.parametrize(
    ("sizes", "slots"),
    [([100], SLOTS), ([1000], LONG_SLOTS), ([2000], LARGE_SLOTS), ([1000, 2000], 4)],
)
def test_only_a_few_go_at_a_time_and_four_of_those_that_take_a_slow_link_for_seconds(
    faulty: MakeManager,
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sizes: list[int],
    slots: int,
) -> None:
    monkeypatch.setattr(delivery, "LONG_RESULT", 999)
    monkeypatch.setattr(delivery, "LARGE_RESULT", 1999)
    in_flight: set[int] = set()
    most = []
    full = Event()

    def answer(request: Request) -> bytes:
        in_flight.add(task_of(request))
        if len(in_flight) == slots:
            full.set()
        assert full.wait(5)
        gevent.sleep(0.02)
        most.append(len(in_flight))
        in_flight.remove(task_of(request))
        return well(request)

    post = post_to(faulty(answer), directory)
    for task_id in range(3 * slots):
        document = b"{%s}" % (b" " * (sizes[task_id % len(sizes)] - 2))
        post.put(task_id, with_document(tmp_path / f"{task_id}.json", document))
    assert post.outbox.flush(5)
    assert max(most) == slots


@pytest.mark.parametrize(("larger", "smaller"), [(2000, 1000), (2000, 100), (1000, 100)])
def test_no_message_waits_for_a_larger_result(
    faulty: MakeManager,
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    larger: int,
    smaller: int,
) -> None:
    monkeypatch.setattr(delivery, "LONG_RESULT", 999)
    monkeypatch.setattr(delivery, "LARGE_RESULT", 1999)
    smaller_done = Event()

    def answer(request: Request) -> bytes:
        if len(request.body) > larger:
            assert smaller_done.wait(5)
        else:
            smaller_done.set()
        return well(request)

    post = post_to(faulty(answer), directory, start=False)
    for task_id in range(2 * SLOTS):
        document = b"{%s}" % (b" " * larger)
        post.put(task_id, with_document(tmp_path / f"{task_id}.json", document))
    document = b"{%s}" % (b" " * (smaller - 2))
    post.put(99, with_document(tmp_path / "99.json", document))
    post.outbox.start()
    assert post.outbox.flush(4)


@pytest.mark.parametrize("failure", [b"", UNAVAILABLE], ids=["lost", "503"])
def test_a_message_is_sent_again_with_its_idempotency_key_until_it_is_accepted(
    faulty: MakeManager, directory: Path, failure: bytes
) -> None:
    post = post_to(
        faulty(lambda request: well(request) if len(post.manager.requests) > 1 else failure),
        directory,
    )
    post.put(7, SUCCEEDED)
    assert post.outbox.flush(10)
    first, second = post.manager.requests
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_different_messages_have_different_idempotency_keys(
    faulty: MakeManager, directory: Path
) -> None:
    post = post_to(faulty(well), directory)
    post.send_started(7, 77)
    post.manager.wait_for(lambda: post.manager.requests)
    post.put(7, SUCCEEDED)
    post.put(7, SUCCEEDED)
    assert post.outbox.flush(5)
    keys = {request.headers["idempotency-key"] for request in post.manager.requests}
    assert len(keys) == 3


def test_the_manager_is_left_alone_for_as_long_as_it_says(
    faulty: MakeManager, directory: Path, clock: Clock
) -> None:
    answers = [raw_reply(b"", 503, Retry_After="17")]
    post = post_to(faulty(lambda request: answers.pop() if answers else well(request)), directory)
    post.put(7, SUCCEEDED)
    until(lambda: not len(post.outbox))
    assert post.manager.calls() == ["result"] * 2
    assert clock.pauses == [17]


def test_attempts_come_at_the_pace_of_a_back_off(
    faulty: MakeManager, directory: Path, clock: Clock
) -> None:
    answers = [UNAVAILABLE] * 9
    post = post_to(faulty(lambda request: answers.pop() if answers else well(request)), directory)
    post.put(7, SUCCEEDED)
    until(lambda: not len(post.outbox))
    assert post.manager.calls() == ["result"] * 10
    bounds = (1, 2, 4, 8, 16, 30)
    assert all(pause <= bound for pause, bound in zip(clock.pauses[:6], bounds, strict=True))
    assert [round(pause, 6) for pause in clock.pauses[6:]] == [30] * 3


def test_started_is_dropped_when_a_result_waits_behind_it(
    faulty: MakeManager, directory: Path
) -> None:
    post = post_to(
        faulty(lambda request: UNAVAILABLE if request.call == "started" else well(request)),
        directory,
    )
    post.send_started(7, 77)
    post.put(7, SUCCEEDED)
    assert post.outbox.flush(5)
    calls = post.manager.calls()
    assert calls == ["started"] * (len(calls) - 1) + ["result"]


def test_nothing_waits_in_an_empty_outbox(faulty: MakeManager, directory: Path) -> None:
    post = post_to(faulty(well), directory)
    assert len(post.outbox) == 0
    assert post.outbox.flush(0)


def test_a_flush_that_runs_out_of_time_says_so_and_the_message_stays(
    faulty: MakeManager, directory: Path
) -> None:
    post = post_to(faulty(lambda _: UNAVAILABLE), directory)
    post.put(7, SUCCEEDED)
    assert not post.outbox.flush(0.2)
    assert len(post.outbox) == 1
    post.outbox.stop()


def test_after_stop_nothing_more_is_sent(
    faulty: MakeManager, directory: Path, clock: Clock
) -> None:
    def answer(request: Request) -> bytes:
        if request.call == "result":
            post.outbox.stop()
            return UNAVAILABLE
        return well(request)

    post = post_to(faulty(answer), directory)
    post.put(7, SUCCEEDED)
    post.manager.wait_for(lambda: post.manager.calls() == ["result"])
    for _ in range(11):
        post.client.send_heartbeat("10.0.0.1", [])
    assert post.manager.calls() == ["result"] + ["heartbeat"] * 11
    assert clock.pauses == []
    assert len(post.outbox) == 1


def test_a_stop_during_a_delivery_keeps_the_messages_behind_it(
    faulty: MakeManager, directory: Path
) -> None:
    def answer(request: Request) -> bytes:
        post.outbox.stop()
        return well(request)

    post = post_to(faulty(answer), directory, start=False)
    for _ in range(3):
        post.put(7, SUCCEEDED)
    post.outbox.start()
    until(lambda: len(post.outbox) < 3)
    for _ in range(11):
        post.client.send_heartbeat("10.0.0.1", [])
    assert post.manager.calls() == ["result"] + ["heartbeat"] * 11
    assert len(post.outbox) == 2


def test_a_stop_keeps_a_message_that_waits_for_its_slot(
    faulty: MakeManager, directory: Path
) -> None:
    def answer(request: Request) -> bytes:
        if len(post.manager.calls()) == SLOTS:
            post.outbox.stop()
        until(lambda: len(post.manager.calls()) >= SLOTS)
        return well(request)

    post = post_to(faulty(answer), directory, start=False)
    for task_id in range(SLOTS + 2):
        post.put(task_id, SUCCEEDED)
    post.outbox.start()
    until(lambda: len(post.outbox) <= 2)
    for _ in range(11):
        post.client.send_heartbeat("10.0.0.1", [])
    assert post.manager.calls() == ["result"] * SLOTS + ["heartbeat"] * 11
    assert len(post.outbox) == 2


def test_a_refused_key_is_tried_again_every_30_s_and_stops_nothing(
    faulty: MakeManager, directory: Path, clock: Clock
) -> None:
    answers = [reply({"detail": {"error": "invalid_agent_key"}}, 401)] * 3
    post = post_to(faulty(lambda request: answers.pop() if answers else well(request)), directory)
    post.put(7, SUCCEEDED)
    until(lambda: not len(post.outbox))
    assert post.manager.calls() == ["result"] * 4
    assert clock.pauses == [30] * 3
    assert post.supervisor.failure is None


def test_an_agent_that_the_manager_does_not_know_sends_nothing_more(
    faulty: MakeManager, directory: Path
) -> None:
    refusal = reply({"error": "agent_disabled"}, 404)
    post = post_to(
        faulty(lambda request: refusal if task_of(request) == 8 else UNAVAILABLE), directory
    )
    post.put(7, SUCCEEDED)
    post.manager.wait_for(lambda: post.manager.requests)
    post.put(8, SUCCEEDED)
    assert post.supervisor.failed.wait(5)
    assert isinstance(post.supervisor.failure, AgentUnknown)
    with gevent.Timeout(2):
        assert not post.outbox.flush(30)


def test_a_bug_in_the_delivery_is_noticed(faulty: MakeManager, directory: Path) -> None:
    post = post_to(faulty(well), directory)
    post.send_started(7, object())  # type: ignore[arg-type]
    assert post.supervisor.failed.wait(5)


def test_what_waits_keeps_no_payload(faulty: MakeManager, directory: Path) -> None:
    """It may have a megabyte, and is of no use any more."""
    post = post_to(faulty(lambda _: UNAVAILABLE), directory)
    claimed = msgspec.structs.replace(
        post.claimed(7),
        task=msgspec.structs.replace(post.claimed(7).task, payload=msgspec.Raw(b'{"time":1}')),
    )
    post.outbox.send_started(claimed, 1)
    post.outbox.put(claimed, FAILED)
    waiting = [bytes(message.claimed.task.payload) for message in post.outbox.messages()]
    assert waiting == [b"{}", b"{}"]
