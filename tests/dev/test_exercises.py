"""Exercises and tasks: their start and end, reserved ports, time-outs, and figures."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from agent.dev.errors import Refused
from agent.dev.store.records import NewTest, utc_now
from agent.dev.store.store import Store
from tests.support.dev_client import Api


def add_loopback_test(store: Store, **options: Any) -> NewTest:
    """A test of a1 with itself in a new exercise, which is not started."""
    exercise = store.exercises.create("loop", duration_seconds=7)
    return store.exercises.add_test(exercise.id, 1, 1, 5201, **options)


def run(store: Store, new: NewTest, result: Any = None) -> None:
    """Start the exercise and have a1 carry it out."""
    store.exercises.start(new.test.exercise_id)
    for task in (new.server_task, new.client_task):
        store.sweep(utc_now())
        store.tasks.claim(1)
        store.tasks.start(1, task.id)
        store.tasks.report(1, task.id, "succeeded", msgspec.Raw(msgspec.json.encode(result)))


def test_a_test_becomes_two_queued_tasks(store: Store) -> None:
    new = add_loopback_test(store, udp=True, parallel=4, options={"reverse": True})
    assert (new.server_task.status, new.client_task.status) == ("queued", "queued")
    assert new.server_task.payload == {"port": 5201, "udp": True}
    assert new.client_task.payload == {
        "server_ip": "127.0.0.1",
        "port": 5201,
        "udp": True,
        "parallel": 4,
        "time": 7,
        "client_delay_seconds": 0,
        "reverse": True,
    }
    assert store.tasks.claim(1) is None


def test_time_seconds_overrides_the_duration_of_the_exercise(store: Store) -> None:
    assert add_loopback_test(store, time_seconds=3).client_task.payload["time"] == 3


def test_start_makes_queued_tasks_pending_and_may_be_repeated(store: Store) -> None:
    new = add_loopback_test(store)
    first = store.exercises.start(1).started_at
    assert store.tasks.claim(1) is new.server_task
    late = store.exercises.add_test(1, 1, 2, 5202)
    assert late.server_task in store.tasks.find(status="queued")
    assert store.exercises.start(1).started_at == first
    assert late.server_task.status == "pending"
    assert new.server_task.status == "accepted"


def test_a_port_is_reserved_until_the_exercise_ends(store: Store) -> None:
    add_loopback_test(store)
    with pytest.raises(Refused, match="port 5201 of 'a1' is reserved by test 1"):
        add_loopback_test(store)
    store.exercises.stop(1)
    assert add_loopback_test(store).test.id == 2


def test_a_server_that_never_registered_has_no_address(store: Store) -> None:
    store.exercises.create("x")
    with pytest.raises(Refused, match="'a2' has never registered"):
        store.exercises.add_test(1, 2, 1, 5201)


@pytest.mark.parametrize(("exercise", "server", "client"), [(9, 1, 1), (1, 9, 1), (1, 1, 9)])
def test_a_test_needs_an_existing_exercise_and_agents(
    store: Store, exercise: int, server: int, client: int
) -> None:
    store.exercises.create("x")
    with pytest.raises(Refused, match="no (exercise|agent) has the id 9"):
        store.exercises.add_test(exercise, server, client, 5201)
    assert store.tasks.find() == []


def test_an_exercise_ends_with_a_kill_all_when_all_its_tasks_have_ended(store: Store) -> None:
    new = add_loopback_test(store)
    store.sweep(utc_now())
    assert store.exercises.get(1).ended_at is None
    run(store, new)
    store.sweep(utc_now())
    assert store.exercises.get(1).ended_at is not None
    (kill,) = store.tasks.find(type="kill_all", status="pending")
    scope = [new.server_task.id, new.client_task.id]
    assert (kill.agent_id, kill.payload) == (1, {"task_ids": scope})
    store.sweep(utc_now())
    assert len(store.tasks.find(type="kill_all")) == 1
    assert store.exercises.tasks(1) == [new.server_task, new.client_task]


def test_an_exercise_with_an_open_task_or_without_tasks_does_not_end(store: Store) -> None:
    add_loopback_test(store)
    store.exercises.start(1)
    store.exercises.create("empty")
    store.exercises.start(2)
    store.sweep(utc_now())
    assert [exercise.ended_at for exercise in store.exercises.all()] == [None, None]


def test_an_exercise_that_never_started_does_not_end_by_itself(store: Store) -> None:
    add_loopback_test(store)
    for task in store.exercises.tasks(1):
        store.tasks.cancel(task.id)
    store.sweep(utc_now())
    assert store.exercises.get(1).ended_at is None


def test_each_stop_cancels_unclaimed_tasks_and_sends_kill_all(store: Store) -> None:
    exercise = store.exercises.create("two agents")
    new = store.exercises.add_test(exercise.id, 1, 2, 5201)
    store.exercises.start(exercise.id)
    store.tasks.claim(1)
    kills = store.exercises.stop(exercise.id)
    ended = exercise.ended_at
    assert (new.server_task.status, new.client_task.status) == ("accepted", "canceled")
    assert store.tasks.find(type="kill_all") == kills[::-1]
    assert [task.agent_id for task in store.exercises.stop(exercise.id)] == [1, 2]
    assert exercise.ended_at == ended
    assert len(store.tasks.find(type="kill_all")) == 4
    assert store.tasks.report(1, new.server_task.id, "failed").status == "failed"


def test_each_agent_has_to_end_its_own_tasks_of_the_exercise(store: Store) -> None:
    store.agents.register(2, "127.0.0.1", None)
    exercise = store.exercises.create("two tests")
    there = store.exercises.add_test(exercise.id, 1, 2, 5201)
    store.exercises.create("another")
    store.exercises.add_test(2, 1, 2, 5202)
    back = store.exercises.add_test(exercise.id, 2, 1, 5201)
    kills = store.exercises.stop(exercise.id)
    assert [(task.agent_id, task.payload) for task in kills] == [
        (1, {"task_ids": [there.server_task.id, back.client_task.id]}),
        (2, {"task_ids": [there.client_task.id, back.server_task.id]}),
    ]


def test_todays_manager_has_all_tasks_ended_and_cancels_none() -> None:
    store = Store(extensions=False)
    store.agents.add("a1", "key-1")
    store.agents.register(1, "127.0.0.1", None)
    new = add_loopback_test(store)
    store.exercises.start(1)
    assert [task.payload for task in store.exercises.stop(1)] == [{}]
    assert store.tasks.find(status="pending")[1:] == [new.client_task, new.server_task]


def test_an_ended_exercise_accepts_no_test_and_no_start(store: Store) -> None:
    store.exercises.create("over")
    store.exercises.stop(1)
    with pytest.raises(Refused, match="exercise 1 has ended"):
        store.exercises.add_test(1, 1, 1, 5201)
    with pytest.raises(Refused, match="exercise 1 has ended"):
        store.exercises.start(1)


@pytest.mark.parametrize(
    ("payload", "limit"),
    [
        ({"time": 30}, 60),
        ({"time": 30, "omit": 5}, 65),
        ({"time": 30, "omit": "long"}, 60),
        ({"time": 300}, 330),
        ({"time": 1000}, 1100),
        ({}, 40),
        ({"time": "long"}, 40),
        ({"time": 10**400}, 95_040),
    ],
)
def test_a_client_task_times_out_half_a_minute_or_a_tenth_of_its_time_after_its_test(
    store: Store, payload: dict[str, Any], limit: int
) -> None:
    task = store.tasks.add(1, "iperf_client_run", payload)
    store.tasks.claim(1)
    store.sweep(utc_now() + timedelta(hours=1))
    assert store.tasks.find(status="accepted") == [task]
    started = store.tasks.start(1, task.id).started_at
    assert started is not None
    store.sweep(started + timedelta(seconds=limit))
    assert store.tasks.find(status="running") == [task]
    store.sweep(started + timedelta(seconds=limit + 1))
    assert task.status == "timed_out" and task.finished_at is not None
    assert store.tasks.report(1, task.id, "succeeded", msgspec.Raw(b"{}")).status == "succeeded"


def test_a_server_task_never_times_out(store: Store) -> None:
    task = store.tasks.add(1, "iperf_server_start", {})
    store.tasks.claim(1)
    store.tasks.start(1, task.id)
    store.sweep(utc_now() + timedelta(days=1))
    assert task.status == "running"


def test_an_agent_is_offline_fifteen_seconds_after_its_last_heartbeat(store: Store) -> None:
    store.agents.heartbeat(1, "127.0.0.1", [])
    seen = store.agents.get(1).last_heartbeat
    assert seen is not None
    store.sweep(seen + timedelta(seconds=15))
    assert store.agents.get(1).status == "online"
    store.sweep(seen + timedelta(seconds=16))
    assert store.agents.get(1).status == "offline"
    store.agents.heartbeat(1, "127.0.0.1", [])
    assert store.agents.get(1).status == "online"
    assert store.agents.get(2).status == "offline"


def test_a_task_that_has_ended_cannot_be_canceled(store: Store) -> None:
    task = store.tasks.add(1, "kill_all", {})
    assert store.tasks.cancel(task.id).finished_at is not None
    with pytest.raises(Refused, match="task 1 is canceled"):
        store.tasks.cancel(task.id)


def test_results_carry_the_figures_of_the_client(api: Api, store: Store) -> None:
    new = add_loopback_test(store)
    sums = {
        "sum_sent": {"bits_per_second": 2e9, "retransmits": 3},
        "sum": {"jitter_ms": 0.5, "lost_percent": 1.5},
    }
    run(store, new, {"start": {}, "intervals": [], "end": sums})
    api.login()
    answer = api.call("GET", "exercises/1/results").json()
    assert answer == {
        "exercise_id": 1,
        "tests": [
            {
                "test_id": 1,
                "server": {"agent_id": 1, "port": 5201},
                "client": {"agent_id": 1},
                "udp": False,
                "parallel": 1,
                "status": "succeeded",
                "started_at": answer["tests"][0]["started_at"],
                "finished_at": answer["tests"][0]["finished_at"],
                "metrics": {
                    "bps_avg": 2e9,
                    "retransmits": 3,
                    "jitter_ms": 0.5,
                    "loss_pct": 1.5,
                },
            }
        ],
        "aggregate": {"bps_avg": 2e9},
    }


def test_what_an_aborted_test_never_learnt_from_its_sender_is_no_rate_of_0(
    api: Api, store: Store
) -> None:
    """iperf3 3.12 writes so of a reverse test that the client ended."""
    sums = {
        "sum_sent": {"bytes": 0, "bits_per_second": 0, "retransmits": 0},
        "sum_received": {"bytes": 5e8, "bits_per_second": 2e9},
    }
    asked = {"test_start": {"protocol": "TCP", "reverse": 1}}
    error = "interrupt - the client has terminated"
    run(store, add_loopback_test(store), {"start": asked, "end": sums, "error": error})
    api.login()
    answer = api.call("GET", "exercises/1/results").json()
    assert "metrics" not in answer["tests"][0]
    assert answer["aggregate"] == {}


@pytest.mark.parametrize(
    "result",
    [None, {}, {"end": {}}, {"end": {"sum": 5}}, {"end": {"sum_sent": {"retransmits": 1e300}}}],
)
def test_a_result_that_is_no_iperf3_document_has_no_figures(
    api: Api, store: Store, result: Any
) -> None:
    run(store, add_loopback_test(store), result)
    api.login()
    answer = api.call("GET", "exercises/1/results").json()
    assert "metrics" not in answer["tests"][0]
    assert answer["aggregate"] == {}
