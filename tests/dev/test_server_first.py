"""A client's task waits for its server, and is spared when that failed."""

import os
import signal
from datetime import timedelta

import pytest

from agent.dev.store.exercises import SERVER_PATIENCE
from agent.dev.store.records import NewTest, utc_now
from agent.dev.store.store import Store
from tests.dev.test_page import get as get_page
from tests.dev.test_page import report, text
from tests.support.harness import Bench, free_port, iperf3_server


def start_test(store: Store, port: int = 5201) -> NewTest:
    """A started test from a2 to a1."""
    exercise = store.exercises.create("x", 1)
    new = store.exercises.add_test(exercise.id, 1, 2, port, options={"bitrate": 10**7})
    store.exercises.start(exercise.id)
    return new


@pytest.fixture(name="pair")
def fixture_pair(bench: Bench) -> Bench:
    """A dev Manager and its two agents at work."""
    for number in (1, 2):
        bench.agent(number=number).wait_for("registered")
    return bench


def test_a_client_is_spared_when_a_stranger_holds_its_servers_port(pair: Bench) -> None:
    port = free_port()
    with iperf3_server(port) as stranger:
        new = start_test(pair.store, port)
        pair.wait(lambda: pair.store.exercises.get(1).ended_at)
        assert str(stranger.pid) in (new.server_task.error or "")
    assert (new.server_task.status, new.client_task.status) == ("failed", "canceled")
    assert new.client_task.accepted_at is None
    assert new.client_task.error == f"server task failed: {new.server_task.error}"
    shown = text(get_page(pair.manager))
    assert f"server failed Server on a1: port {port} is in use by " in shown
    assert "Choose another port" in shown and "froze" not in shown and "Client on" not in shown


def test_a_client_starts_at_once_when_its_server_listens(pair: Bench) -> None:
    new = start_test(pair.store, free_port())
    client, server = pair.ended(new.client_task), new.server_task
    assert client.status == "succeeded", client.error
    assert client.payload["client_delay_seconds"] == 0
    assert server.finished_at and client.accepted_at and server.finished_at <= client.accepted_at
    assert pair.result(client)["agent"]["attempts"] == 1


def test_a_client_waits_for_an_agent_that_is_to_run_its_server(bench: Bench) -> None:
    bench.store.agents.register(1, "127.0.0.1")
    new = start_test(bench.store)
    bench.store.sweep(utc_now() + timedelta(hours=1))
    assert new.client_task.status == "queued"
    assert "waiting for the server on a1, which is offline" in text(get_page(bench.manager))


def test_a_server_that_never_reports_delays_its_client_and_holds_up_nothing(store: Store) -> None:
    new = start_test(store)
    server, client = new.server_task, new.client_task
    assert store.tasks.claim(1) is server and server.accepted_at
    store.tasks.start(1, server.id)
    store.sweep(server.accepted_at + SERVER_PATIENCE)
    assert store.tasks.claim(2) is None
    store.sweep(server.accepted_at + SERVER_PATIENCE * 1.01)
    assert store.tasks.claim(2) is client
    report(store, client.id, {})
    store.sweep(utc_now())
    assert store.exercises.get(1).ended_at
    kills = store.tasks.find(type="kill_all")
    assert [(kill.agent_id, kill.payload) for kill in kills] == [
        (2, {"task_ids": [client.id]}),
        (1, {"task_ids": [server.id]}),
    ]
    store.tasks.report(1, server.id, "succeeded")
    assert server.status == "succeeded"


def test_a_canceled_server_takes_its_client_along(store: Store) -> None:
    new = start_test(store)
    store.tasks.cancel(new.server_task.id)
    store.sweep(utc_now())
    assert (new.client_task.status, new.client_task.error) == (
        "canceled",
        "server task canceled: no reason given",
    )


def test_a_canceled_client_leaves_no_server_behind(store: Store) -> None:
    new = start_test(store)
    store.tasks.cancel(new.client_task.id)
    store.sweep(utc_now())
    assert new.server_task.status == "canceled" and store.exercises.get(1).ended_at


def test_today_s_manager_starts_both_at_once_and_waits_for_both() -> None:
    store = Store(extensions=False)
    for number in (1, 2):
        store.agents.register(store.agents.add(f"a{number}", "key").id, "127.0.0.1")
    new = start_test(store)
    assert store.tasks.claim(2) is new.client_task
    assert new.client_task.payload["client_delay_seconds"] == 2
    store.tasks.claim(1)
    report(store, new.server_task.id, {}, "port in use")
    store.sweep(utc_now() + timedelta(hours=1))
    assert new.client_task.status == "accepted"
    report(store, new.client_task.id, {})
    store.sweep(utc_now())
    assert store.exercises.get(1).ended_at


def test_a_client_that_lost_its_server_is_shown_with_why_that_ended(pair: Bench) -> None:
    exercise = pair.store.exercises.create("x", 60)
    given = {"bitrate": 10**7}
    new = pair.store.exercises.add_test(exercise.id, 1, 2, free_port(), options=given)
    pair.store.exercises.start(exercise.id)
    pair.wait(lambda: new.client_task.status == "running")
    os.kill(pair.result(new.server_task)["pid"], signal.SIGKILL)
    assert pair.ended(new.client_task).status == "failed"
    pair.wait(lambda: b'"ended"' in bytes(new.server_task.result))
    shown = text(get_page(pair.manager))
    assert "Server on a1: iperf3 was killed by signal 9, not by this agent" in shown
    assert shown.index("Server on a1") < shown.index("Client on a2")


def test_a_test_that_somebody_stops_has_not_failed(pair: Bench) -> None:
    exercise = pair.store.exercises.create("x", 60)
    given = {"bitrate": 10**7}
    new = pair.store.exercises.add_test(exercise.id, 1, 2, free_port(), options=given)
    client = new.client_task
    pair.store.exercises.start(exercise.id)
    pair.wait(lambda: client.status == "running")
    pair.store.exercises.stop(exercise.id)
    pair.wait(lambda: all(t.status == "succeeded" for t in pair.store.tasks.find(type="kill_all")))
    pair.ended(client)
    shown = text(get_page(pair.manager))
    assert "Test 1 stopped" in shown and "Client on" not in shown and "Server on" not in shown
