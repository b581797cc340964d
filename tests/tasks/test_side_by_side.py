"""Two exercises on the same two agents, through the dev Manager's API, with real iperf3."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from agent.dev.store.records import ManagedTask
from tests.support.dev_client import Api
from tests.support.harness import Bench, free_port

pytestmark = pytest.mark.process


@dataclass
class Exercise:
    """An exercise at the dev Manager, and the tasks of its tests."""

    api: Api
    number: int
    servers: list[ManagedTask]
    clients: list[ManagedTask]

    def stop(self) -> None:
        """Press stop."""
        assert self.api.call("POST", f"exercises/{self.number}/stop").ok


class Operator:
    """Whoever runs exercises on both agents of a bench."""

    def __init__(self, bench: Bench, api: Api) -> None:
        self._bench, self._api = bench, api

    def start(self, seconds: int, *ports: int) -> Exercise:
        """Start an exercise with two tests, one in each direction, and wait until both run."""
        asked = {"name": f"{seconds} s", "duration_seconds": seconds}
        number = self._api.call("POST", "exercises", asked).json()["id"]
        exercise = Exercise(self._api, number, [], [])
        for (server, client), port in zip([(1, 2), (2, 1)], ports, strict=True):
            exercise_test = {
                "server_agent_id": server,
                "client_agent_id": client,
                "server_port": port,
                "options": {"client_delay_seconds": 0.5, "bitrate": 10**7},
            }
            answer = self._api.call("POST", f"exercises/{number}/tests", exercise_test)
            assert answer.status_code == 201, answer.text
            for tasks, side in ((exercise.servers, "server"), (exercise.clients, "client")):
                tasks.append(self._bench.store.tasks.get(answer.json()[f"{side}_task"]["id"]))
        assert self._api.call("POST", f"exercises/{number}/start").ok
        self._bench.wait(lambda: all(each.started_at for each in exercise.clients))
        return exercise

    def kills(self, exercise: Exercise) -> list[ManagedTask]:
        """The `kill_all` tasks of an exercise that has ended, once they have ended as well."""
        ours = {task.id for task in exercise.servers + exercise.clients}
        found = self._bench.store.tasks.find(type="kill_all")
        kills = [task for task in found if ours.intersection(task.payload["task_ids"])]
        assert len(kills) == 2
        return [self._bench.ended(task) for task in kills]


@pytest.fixture(name="operator")
def fixture_operator(bench: Bench) -> Iterator[Operator]:
    """An operator of the dev Manager, and both agents at work."""
    yield from _operator(bench)


def _operator(bench: Bench) -> Iterator[Operator]:
    for number in (1, 2):
        bench.agent(number=number, STOP_GRACE="1").wait_for("registered")
    with Api(bench.manager.url) as api:
        assert api.login().ok
        yield Operator(bench, api)


def assert_whole(bench: Bench, exercise: Exercise, seconds: int) -> None:
    """Its tests ran for their time, and their servers until it ended."""
    for client in exercise.clients:
        assert bench.ended(client).status == "succeeded", client.error
        assert bench.result(client)["end"]["sum_sent"]["seconds"] > seconds - 0.3
    for server in exercise.servers:
        assert assert_stopped(bench, server)["end"]["sum_received"]["seconds"] > seconds - 0.3


def assert_stopped(bench: Bench, server: ManagedTask) -> Any:
    """A server served until a kill_all came; returns its last result."""
    bench.wait(lambda: b'"ended"' in bytes(server.result))
    served = bench.result(server)
    assert served["agent"]["ended"] == "stopped by kill_all"
    return served


def counts(bench: Bench, kills: list[ManagedTask]) -> list[Any]:
    """How many tasks each of them has ended."""
    return [bench.result(kill)["count"] for kill in kills]


def test_the_stop_of_an_exercise_leaves_the_one_beside_it_alone(
    bench: Bench, operator: Operator
) -> None:
    stopped = operator.start(60, free_port(), free_port())
    other = operator.start(4, free_port(), free_port())
    stopped.stop()
    # A client may have ended before its agent's kill_all, as its server had one as well.
    assert set(counts(bench, operator.kills(stopped))) <= {1, 2}
    for client in stopped.clients:
        assert bench.ended(client).status == "failed"
    assert all(client.finished_at is None for client in other.clients), "they still run"
    assert_whole(bench, other, 4)
    assert counts(bench, operator.kills(other)) == [1, 1]


def test_an_exercise_that_ends_leaves_the_one_beside_it_alone(
    bench: Bench, operator: Operator
) -> None:
    longer = operator.start(6, free_port(), free_port())
    brief = operator.start(1, free_port(), free_port())
    assert_whole(bench, brief, 1)
    assert counts(bench, operator.kills(brief)) == [1, 1]
    assert all(client.finished_at is None for client in longer.clients), "they still run"
    assert_whole(bench, longer, 6)


def test_an_exercise_may_begin_as_soon_as_the_tests_of_another_have_ended(
    bench: Bench, operator: Operator
) -> None:
    first = operator.start(1, free_port(), free_port())
    for client in first.clients:
        bench.ended(client)
    second = operator.start(2, free_port(), free_port())
    assert_whole(bench, first, 1)
    assert_whole(bench, second, 2)


def test_an_exercise_may_begin_on_the_same_ports_as_soon_as_another_has_ended(
    bench: Bench, operator: Operator
) -> None:
    ports = free_port(), free_port()
    first = operator.start(1, *ports)
    bench.wait(lambda: bench.store.exercises.get(first.number).ended_at)
    second = operator.start(2, *ports)
    assert_whole(bench, first, 1)
    assert_whole(bench, second, 2)


def test_the_kill_all_of_todays_manager_still_ends_every_test(todays_bench: Bench) -> None:
    bench = todays_bench
    for operator in _operator(bench):
        stopped = operator.start(60, free_port(), free_port())
        other = operator.start(60, free_port(), free_port())
        stopped.stop()
        for client in stopped.clients + other.clients:
            assert bench.ended(client).status == "failed"
        for server in stopped.servers + other.servers:
            assert_stopped(bench, server)
        assert [kill.payload for kill in bench.store.tasks.find(type="kill_all")[:2]] == [{}] * 2
