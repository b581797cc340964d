"""Long poll, claim replay and cancel, and today's Manager, which knows none of them."""

import socket
from collections.abc import Iterator

import gevent
import pytest
import requests

from agent.dev.server import DevManager
from agent.dev.store.store import Store
from tests.support.dev_client import Api

# A claim that is answered in half of this time was woken and did not time out.
HELD_SECONDS = 20
HEARTBEAT = {"ip_address": "127.0.0.1", "running": []}


@pytest.fixture(name="today")
def fixture_today() -> Iterator[tuple[Store, Api]]:
    """A Manager without extensions, and a client of it."""
    store = Store(extensions=False)
    store.agents.add("a1", "key-1")
    manager = DevManager(store, "127.0.0.1", 0)
    manager.start()
    with Api(manager.url) as api:
        yield store, api
    manager.stop()


def held_claim(api: Api, seconds: str = str(HELD_SECONDS)) -> gevent.Greenlet:
    """A claim that has reached the Manager and waits there."""
    with Api(api.url) as other:
        held: gevent.Greenlet = gevent.spawn(other.agent, "tasks/claim", Prefer=f"wait={seconds}")
        # Each answered call shows that the Manager has served its sockets once more.
        for _ in range(3):
            api.agent("heartbeat", HEARTBEAT)
    return held


@pytest.mark.parametrize("seconds", [str(HELD_SECONDS), "9" * 5000], ids=["short", "endless"])
def test_a_held_claim_is_answered_as_soon_as_a_task_is_pending(
    api: Api, store: Store, seconds: str
) -> None:
    held = held_claim(api, seconds)
    assert not held.ready()
    task = store.tasks.add(1, "kill_all", {})
    answer: requests.Response = held.get(timeout=HELD_SECONDS / 2)
    assert answer.json()["task"]["id"] == task.id
    assert answer.headers["Preference-Applied"] == "wait"


def test_a_held_claim_without_a_task_is_answered_when_its_wait_is_over(
    api: Api, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def wait(agent_id: int, key: str, timeout: float) -> None:
        wait_for_task(agent_id, key, timeout)
        waited.append(timeout)

    wait_for_task = store.tasks.wait_for_task
    monkeypatch.setattr(store.tasks, "wait_for_task", wait)
    answer = api.agent("tasks/claim", Prefer="respond-async, wait=1")
    assert waited == [1]
    assert answer.json() == {"task": None}
    assert answer.headers["Preference-Applied"] == "wait"


@pytest.mark.parametrize("prefer", ["wait=soon", "wait=-1", "wait", "respond-async"])
def test_any_other_preference_is_ignored(api: Api, prefer: str) -> None:
    assert "Preference-Applied" not in api.agent("tasks/claim", Prefer=prefer).headers


def test_disabling_an_agent_ends_its_held_claim(api: Api, store: Store) -> None:
    held = held_claim(api)
    store.agents.update(1, {"disabled": True})
    answer: requests.Response = held.get(timeout=HELD_SECONDS / 2)
    assert answer.status_code == 404


def test_a_manager_that_stops_drops_a_held_claim_without_an_answer(
    api: Api, manager: DevManager
) -> None:
    held = held_claim(api)
    manager.stop()
    with pytest.raises(requests.ConnectionError):
        held.get(timeout=HELD_SECONDS / 2)


@pytest.mark.parametrize("reset", [False, True])
def test_a_task_is_not_given_to_a_client_that_hung_up(
    api: Api, manager: DevManager, store: Store, caplog: pytest.LogCaptureFixture, reset: bool
) -> None:
    dead = socket.create_connection(("127.0.0.1", manager.port))
    head = "Host: localhost\r\nX-AGENT-NAME: a1\r\nX-AGENT-KEY: key-1\r\nX-API-Version: 1\r\n"
    lines = f"POST /v1/agent/tasks/claim HTTP/1.1\r\n{head}Prefer: wait=20\r\n"
    dead.sendall(f"{lines}Content-Length: 2\r\n\r\n{{}}".encode())
    live = held_claim(api)
    if reset:
        linger_no_time = b"\1\0\0\0\0\0\0\0"
        dead.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_time)
    dead.close()
    task = store.tasks.add(1, "kill_all", {})
    answer: requests.Response = live.get(timeout=HELD_SECONDS / 2)
    assert answer.json()["task"]["id"] == task.id
    assert caplog.text == ""


def test_a_claim_with_the_same_key_gets_the_same_task_again(api: Api, store: Store) -> None:
    assert api.agent("tasks/claim", Idempotency_Key="k").json() == {"task": None}
    first = store.tasks.add(1, "kill_all", {})
    second = store.tasks.add(1, "kill_all", {})
    assert api.agent("tasks/claim", Idempotency_Key="k").json()["task"]["id"] == first.id
    assert api.agent("tasks/claim", Idempotency_Key="k").json()["task"]["id"] == first.id
    replayed = api.agent("tasks/claim", Idempotency_Key="k", Prefer="wait=20")
    assert replayed.json()["task"]["id"] == first.id
    assert api.agent("tasks/claim", Idempotency_Key="l").json()["task"]["id"] == second.id


def test_another_agents_key_replays_nothing(api: Api, store: Store) -> None:
    store.tasks.add(1, "kill_all", {})
    api.agent("tasks/claim", Idempotency_Key="k")
    answer = api.agent("tasks/claim", X_AGENT_NAME="a2", X_AGENT_KEY="key-2", Idempotency_Key="k")
    assert answer.json() == {"task": None}


def test_heartbeats_carry_a_canceled_task_until_it_is_reported(api: Api, store: Store) -> None:
    task = store.tasks.add(1, "iperf_client_run", {})
    api.agent("tasks/claim")
    store.tasks.cancel(task.id)
    for _ in range(2):
        assert api.agent("heartbeat", HEARTBEAT).json() == {"pull_tasks": True, "cancel": [1]}
    answer = api.agent(f"tasks/{task.id}/result", {"status": "failed"})
    assert answer.json()["detail"]["details"] == {"current_status": "canceled"}
    assert api.agent("heartbeat", HEARTBEAT).json() == {"pull_tasks": True}


def test_a_task_canceled_before_it_was_claimed_is_never_handed_out(api: Api, store: Store) -> None:
    task = store.tasks.add(1, "iperf_client_run", {})
    store.tasks.cancel(task.id)
    assert api.agent("tasks/claim").json() == {"task": None}
    assert api.agent("heartbeat", HEARTBEAT).json() == {"pull_tasks": True}


def test_the_manager_of_today_does_not_wait(today: tuple[Store, Api]) -> None:
    answer = today[1].agent("tasks/claim", Prefer="wait=20")
    assert answer.json() == {"task": None}
    assert "Preference-Applied" not in answer.headers


def test_the_manager_of_today_replays_no_claim(today: tuple[Store, Api]) -> None:
    store, api = today
    store.tasks.add(1, "kill_all", {})
    assert api.agent("tasks/claim", Idempotency_Key="k").json()["task"]["id"] == 1
    assert api.agent("tasks/claim", Idempotency_Key="k").json() == {"task": None}


def test_the_manager_of_today_tells_no_agent_of_a_cancel(today: tuple[Store, Api]) -> None:
    store, api = today
    store.tasks.add(1, "kill_all", {})
    store.tasks.claim(1)
    store.tasks.cancel(1)
    assert api.agent("heartbeat", HEARTBEAT).json() == {"pull_tasks": True}
