"""The operators' calls over real sockets."""

from typing import Any

import pytest

from agent.dev.server import DevManager
from agent.dev.store.store import Store
from tests.support.dev_client import DEADLINE_SECONDS, Api
from tests.support.harness import until


def test_the_page_and_the_health_check_need_no_login(api: Api) -> None:
    page = api.session.get(f"{api.url}/", timeout=DEADLINE_SECONDS)
    assert (page.status_code, "Not for production" in page.text) == (200, True)
    health = api.session.get(f"{api.url}/healthz", timeout=DEADLINE_SECONDS)
    assert health.json() == {"ok": True}


def test_nothing_else_is_open_without_a_login(api: Api, store: Store) -> None:
    for method, path in [("GET", "agents"), ("POST", "exercises"), ("GET", "tasks")]:
        answer = api.call(method, path)
        assert (answer.status_code, answer.json()["detail"][:6]) == (403, "log in")
    api.token = "made up"
    assert api.call("GET", "agents").status_code == 401
    assert store.exercises.all() == []


def test_a_wrong_password_or_user_is_refused(api: Api) -> None:
    refused = api.login("wrong")
    assert (refused.status_code, refused.json()) == (401, {"detail": "wrong user name or password"})
    root = {"username": "root", "password": "admin123"}
    assert api.call("POST", "auth/login", root).status_code == 401
    assert api.login().json()["token_type"] == "bearer"


def test_agents_are_added_listed_changed_disabled_and_enabled(api: Api, store: Store) -> None:
    api.login()
    new = {"name": "a3", "registration_key": "key-3"}
    assert api.call("POST", "agents", new).status_code == 201
    assert api.call("POST", "agents", new).status_code == 409
    assert api.call("GET", "agents/3").json()["name"] == "a3"
    changed = api.call("PUT", "agents/3", {"name": "b3", "operating_system": None}).json()
    assert (changed["name"], changed["registration_key"]) == ("b3", "key-3")
    assert api.call("PUT", "agents/3", {"name": "a1"}).status_code == 409
    assert api.call("POST", "agents/3/disable").status_code == 204
    assert [agent["id"] for agent in api.call("GET", "agents").json()] == [1, 2]
    assert len(api.call("GET", "agents?include_disabled=true").json()) == 3
    assert [agent["id"] for agent in api.call("GET", "agents?status=online").json()] == [1]
    assert api.call("POST", "agents/3/enable").status_code == 204
    assert store.agents.get(3).disabled is False


def test_an_exercise_runs_from_creation_to_results(api: Api, store: Store) -> None:
    api.login()
    made = api.call("POST", "exercises", {"name": "x", "notes": "n"})
    assert (made.status_code, made.json()["duration_seconds"]) == (201, 30)
    assert (made.json()["started_at"], made.json()["ended_at"]) == (None, None)
    plan = {"server_agent_id": 1, "client_agent_id": 2, "server_port": 5201}
    added = api.call("POST", "exercises/1/tests", {**plan, "options": {"mss": 1000}})
    assert added.status_code == 201
    assert added.json()["client_task"]["payload"]["mss"] == 1000
    taken = api.call("POST", "exercises/1/tests", plan)
    assert (taken.status_code, taken.json()["error"]) == (409, "conflict")
    assert "reserved by test 1" in taken.json()["message"]
    assert api.call("POST", "exercises/1/start").json()["started_at"]
    shown = api.call("GET", "exercises/1").json()
    assert [task["status"] for task in shown.pop("tasks")] == ["pending", "queued"]
    assert [test["server_port"] for test in shown.pop("tests")] == [5201]
    # As today's Manager: only an exercise by itself has its tests and tasks.
    assert api.call("GET", "exercises").json() == [shown]
    stopped = api.call("POST", "exercises/1/stop").json()
    assert (stopped["stopped"], [kill["agent_id"] for kill in stopped["kill_tasks"]]) == (
        True,
        [1, 2],
    )
    assert api.call("GET", "exercises/1").json()["ended_at"]
    results = api.call("GET", "exercises/1/results").json()
    assert results["tests"][0]["status"] == "canceled"


def test_tasks_are_added_listed_and_canceled(api: Api, store: Store) -> None:
    api.login()
    new = {"agent_id": 2, "type": "iperf_client_run", "payload": {"server_ip": "127.0.0.1"}}
    made = api.call("POST", "tasks", new)
    assert (made.status_code, made.json()["status"]) == (201, "pending")
    api.call("POST", "tasks", {"agent_id": 1, "type": "kill_all"})
    for wanted, ids in [
        ("agent_id=2", [1]),
        ("status=pending", [2, 1]),
        ("type=kill_all", [2]),
        ("status=failed", []),
    ]:
        assert [task["id"] for task in api.call("GET", f"tasks?{wanted}").json()] == ids
    canceled = api.call("POST", "tasks/1/cancel").json()
    assert (canceled["canceled"], canceled["task"]["status"]) == (True, "canceled")
    assert api.call("GET", "tasks/1").json() == canceled["task"]


def test_a_port_is_reserved_until_the_exercise_of_its_test_ends(api: Api, store: Store) -> None:
    api.login()
    for port, exercise in [(5201, "a"), (5202, "b")]:
        new = store.exercises.add_test(store.exercises.create(exercise).id, 1, 2, port)
    store.exercises.stop(1)
    created_at = api.call("GET", f"tasks/{new.server_task.id}").json()["created_at"]
    of_task = {"task_id": new.server_task.id, "created_at": created_at}
    assert api.call("GET", "tasks/ports/reservations").json() == [
        {"id": new.test.id, "agent_id": 1, "port": 5202, **of_task}
    ]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "agents/9", None),
        ("PUT", "agents/9", {}),
        ("POST", "agents/9/disable", None),
        ("GET", "exercises/9", None),
        ("GET", "exercises/9/results", None),
        ("POST", "exercises/9/start", None),
        ("POST", "exercises/9/stop", None),
        ("GET", "tasks/9", None),
        ("POST", "tasks/9/cancel", None),
        ("POST", "tasks", {"agent_id": 9, "type": "kill_all"}),
    ],
)
def test_a_record_that_does_not_exist_is_not_found(
    api: Api, method: str, path: str, body: Any
) -> None:
    api.login()
    answer = api.call(method, path, body)
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
    assert answer.json()["details"] == {"path": f"/v1/{path}"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "agents", {"name": "", "registration_key": "k"}),
        ("POST", "agents", {"name": "a b", "registration_key": "k"}),
        ("PUT", "agents/1", {"name": "-a"}),
        ("POST", "exercises", {"name": "x", "duration_seconds": 0}),
        (
            "POST",
            "exercises/1/tests",
            {"server_agent_id": 1, "client_agent_id": 1, "server_port": 0},
        ),
        ("POST", "tasks", {"agent_id": 1, "type": "kill_all", "payload": []}),
        ("GET", "tasks?agent_id=one", None),
    ],
)
def test_an_invalid_body_or_query_is_422(api: Api, method: str, path: str, body: Any) -> None:
    api.login()
    assert api.call(method, path, body).status_code == 422


def test_the_running_manager_ends_a_finished_exercise_by_itself(api: Api, store: Store) -> None:
    store.exercises.create("x")
    store.exercises.add_test(1, 1, 1, 5201)
    store.exercises.start(1)
    for task in store.exercises.tasks(1):
        store.tasks.cancel(task.id)
    until(lambda: store.tasks.find(type="kill_all"), DEADLINE_SECONDS)


def test_a_port_in_use_is_an_oserror(manager: DevManager) -> None:
    with pytest.raises(OSError, match="in use"):
        DevManager(Store(), "127.0.0.1", manager.port).start()
