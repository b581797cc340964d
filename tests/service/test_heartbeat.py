"""The heartbeat loop: what it reports, when, and what it does with the answers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from gevent.event import Event
from structlog.testing import capture_logs

from agent.config.settings import read_settings
from agent.errors import AgentUnknown
from agent.manager.registration import Registration
from agent.metrics import Metrics
from agent.registry import Entry, TaskRegistry
from agent.service.heartbeat import HeartbeatLoop
from agent.service.supervisor import Supervisor
from tests.support.clock import Clock, install_clock
from tests.support.faulty_manager import FaultyManager, Request, raw_reply, reply, well
from tests.support.harness import until
from tests.support.outbox import claimed
from tests.support.sockets import MakeManager, client_of


class Beating:
    """A running heartbeat loop and what it shares with others."""

    def __init__(self, manager: FaultyManager, interval: float, stop: Event) -> None:
        self.registry = TaskRegistry()
        self.stop = stop
        self.supervisor = Supervisor()
        settings = read_settings({"advertise_address": "10.0.0.1"}, {"AGENT_KEY": "key-1"})
        client = client_of(manager)
        manager.registers = True
        registration = Registration(settings, client, lambda: None)
        registration.register()
        self.metrics = Metrics()
        loop = HeartbeatLoop(client, registration, self.registry, self.metrics, interval)
        self.may_claim = loop.may_claim
        self.may_claim.clear()
        self.greenlet = self.supervisor.spawn(loop.run, self.stop)


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the heartbeat loop; only an event of this clock waits by it."""
    return install_clock(monkeypatch, "service.heartbeat.time", "timing.time")


@contextmanager
def beating(
    manager: FaultyManager, interval: float = 0.05, stop: Event | None = None
) -> Iterator[Beating]:
    """Heartbeats for that Manager; they end at once when told to."""
    loop = Beating(manager, interval, stop or Event())
    yield loop
    loop.stop.set()
    loop.greenlet.join(5)
    assert loop.greenlet.ready()


def test_a_heartbeat_has_a_row_for_each_child_that_runs(faulty: MakeManager) -> None:
    manager = faulty(well)
    with beating(manager) as loop:
        client = loop.registry.enter(claimed(7))
        loop.registry.enter(claimed(8, "kill_all"))
        waiting = loop.registry.enter(claimed(9, "iperf_server_start"))
        client.port, waiting.port = 5201, 5202
        client.record_start(os.getpid())
        seen = len(manager.requests)
        manager.wait_for(lambda: len(manager.requests) > seen + 1)
        client.record_end()
        waiting.record_start(4711)
        seen = len(manager.requests)
        manager.wait_for(lambda: len(manager.requests) > seen + 1)
    bodies = [request.json() for request in manager.requests]
    assert {body["ip_address"] for body in bodies} == {"10.0.0.1"}
    reported = [
        [(r["type"], r["task_id"], r["port"], r["pid"]) for r in b["running"]] for b in bodies
    ]
    assert reported[0] == [] or reported[0] == [("client", 7, 5201, os.getpid())]
    assert [("client", 7, 5201, os.getpid())] in reported
    assert reported[-1] == [("server", 9, 5202, 4711)]
    assert bodies[-1]["running"][0]["started_at"].endswith("Z")


@pytest.mark.parametrize("nobody", [{}, {"other_instance": None}, {"other_instance": ""}])
def test_another_host_of_the_name_is_known_until_an_answer_names_none(
    faulty: MakeManager, nobody: dict[str, object]
) -> None:
    names: dict[str, object] = {"other_instance": "192.0.2.7"}
    answers = [nobody, names, names, nobody]
    manager = faulty(lambda _: reply({"pull_tasks": True, **(answers.pop(0) if answers else {})}))
    with capture_logs() as logs, beating(manager) as loop:
        manager.wait_for(lambda: len(manager.requests) == 3)
        assert loop.metrics.other_instance == "192.0.2.7"
        manager.wait_for(lambda: len(manager.requests) == 6)
        assert loop.metrics.other_instance == ""
    said = [line for line in logs if "this agent's name and key" in line["event"]]
    assert [line["event"] for line in said] == [
        "another agent has this agent's name and key",
        "no other agent has this agent's name and key any more",
    ]
    assert said[0]["error"].startswith("it reports from 192.0.2.7: ")
    assert said[1]["failures"] == 2
    assert "no heartbeat; tests go on" not in [line["event"] for line in logs]


def test_heartbeats_that_a_slow_manager_delays_are_skipped(
    faulty: MakeManager, clock: Clock
) -> None:
    times: list[float] = []

    def answer(request: Request) -> bytes:
        times.append(clock.now)
        if len(times) == 3:
            clock.now += 1.5 * 5
        return well(request)

    manager = faulty(answer)
    with beating(manager, interval=5, stop=clock.event()):
        manager.wait_for(lambda: len(times) >= 5)
    ticks = [(moment - times[1]) / 5 for moment in times[1:5]]
    assert ticks == pytest.approx([0, 1, 3, 4])


def test_heartbeats_go_on_while_the_manager_is_away_and_say_when_it_is_back(
    faulty: MakeManager,
) -> None:
    answers = [b"", raw_reply(b"<html>", 502), raw_reply(b"<html>", 404)]
    manager = faulty(lambda request: answers.pop() if answers else well(request))
    with capture_logs() as logs, beating(manager):
        manager.wait_for(lambda: len(manager.requests) == 6)
    said = [line for line in logs if line["log_level"] != "debug"]
    assert [line["event"] for line in said] == [
        "registered",
        "no heartbeat; tests go on",
        "the Manager is back",
    ]
    assert said[-1]["failures"] == 3


def test_the_answer_says_whether_to_claim(faulty: MakeManager) -> None:
    pull = [True]
    manager = faulty(lambda _: reply({"pull_tasks": pull[0]}))
    with beating(manager) as loop:
        assert loop.may_claim.wait(5)
        pull[0] = False
        seen = len(manager.requests)
        manager.wait_for(lambda: len(manager.requests) > seen + 1)
        assert not loop.may_claim.is_set()
        pull[0] = True
        assert loop.may_claim.wait(5)


def test_tasks_on_the_cancel_list_are_told_to_stop(faulty: MakeManager) -> None:
    manager = faulty(lambda _: reply({"pull_tasks": True, "cancel": [7, 99]}))
    with beating(manager) as loop:
        canceled = loop.registry.enter(claimed(7))
        other = loop.registry.enter(claimed(8))
        assert canceled.stop.ordered.wait(5)
        assert canceled.stop.reason == "canceled at the Manager"
        assert not other.stop.ordered.is_set()
    assert loop.supervisor.failure is None


def test_a_task_that_was_claimed_during_a_heartbeat_is_not_canceled_by_its_answer(
    faulty: MakeManager,
) -> None:
    """The answer is about the task that had the number when the heartbeat was sent."""
    entries: list[Entry] = []

    def answer(request: Request) -> bytes:
        if len(entries) == 2:
            return reply({"pull_tasks": True, "cancel": []})
        key = f"key {len(entries)}"
        entries.append(loop.registry.enter(msgspec.structs.replace(claimed(7), key=key)))
        return reply({"pull_tasks": True, "cancel": [7] if len(entries) == 2 else []})

    manager = faulty(answer)
    with beating(manager) as loop:
        until(lambda: len(entries) == 2 and entries[0].stop.ordered.is_set())
        assert not entries[1].stop.ordered.is_set()


def test_a_refused_key_neither_slows_nor_ends_the_heartbeats(
    faulty: MakeManager, clock: Clock
) -> None:
    times: list[float] = []

    def answer(request: Request) -> bytes:
        times.append(clock.now)
        return reply({"error": "invalid_agent_key"}, 401)

    manager = faulty(answer)
    with beating(manager, interval=5, stop=clock.event()) as loop:
        manager.wait_for(lambda: len(times) >= 6)
        assert not loop.greenlet.ready()
    gaps = [after - before for before, after in zip(times[1:5], times[2:6], strict=True)]
    assert gaps == pytest.approx([5] * 4)


def test_an_unknown_agent_ends_the_heartbeats_with_that_failure(faulty: MakeManager) -> None:
    manager = faulty(lambda _: reply({"error": "agent_disabled"}, 404))
    with beating(manager) as loop:
        assert loop.supervisor.failed.wait(5)
        assert isinstance(loop.supervisor.failure, AgentUnknown)
