"""The agents' calls over real sockets: answers, refusals, limits."""

import gzip
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from agent.dev.errors import Refused
from agent.dev.store.records import utc_now
from agent.dev.store.store import Store
from tests.support.dev_client import Api

HEARTBEAT = {"ip_address": "127.0.0.1", "running": []}


def test_register_returns_the_record_with_its_key(api: Api, store: Store) -> None:
    answer = api.agent("register", {"ip_address": "192.0.2.7", "operating_system": "Debian 13"})
    assert answer.status_code == 200
    record = answer.json()
    assert record["id"] == 1
    assert record["registration_key"] == "key-1"
    assert record["ip_address"] == "192.0.2.7"
    assert record["operating_system"] == "Debian 13"
    assert record["status"] == "online"
    assert record["disabled"] is False
    assert record["first_registered"].endswith("Z")


def test_first_registered_is_when_the_agent_was_made_known(api: Api, store: Store) -> None:
    first, second = (store.agents.get(number).first_registered for number in (1, 2))
    assert first is not None and second is not None and first <= second <= utc_now()
    api.agent("register", {"ip_address": "127.0.0.1"})
    assert store.agents.get(1).first_registered == first
    assert store.agents.get(1).operating_system == "Linux"


def test_a_heartbeat_gives_its_rates_and_is_answered_pull_tasks(api: Api, store: Store) -> None:
    row = {"type": "client", "port": 5201, "pid": 7, "task_id": 3, "bits_per_second": 1e9}
    row["unknown"] = [1]
    answer = api.agent("heartbeat", {"ip_address": "127.0.0.2", "running": [row]})
    assert answer.json() == {"pull_tasks": True}
    assert [rate for _, rate in store.agents.rates(1, 3)] == [1e9]
    assert store.agents.get(1).ip_address == "127.0.0.2"
    assert store.agents.rates(2, 3) == []


def test_a_task_goes_from_claim_to_result(api: Api, store: Store) -> None:
    assert api.agent("tasks/claim").json() == {"task": None}
    older = store.tasks.add(1, "kill_all", {})
    store.tasks.add(1, "kill_all", {})
    store.tasks.add(2, "kill_all", {})
    claimed = api.agent("tasks/claim")
    assert "Preference-Applied" not in claimed.headers
    task = claimed.json()["task"]
    assert (task["id"], task["status"], task["payload"]) == (older.id, "accepted", {})
    assert task["accepted_at"] and not task["started_at"]
    running = api.agent(f"tasks/{older.id}/started", {"pid": 12})
    assert (running.status_code, running.json()["status"]) == (200, "running")
    report = {"status": "succeeded", "result": {"killed": True, "count": 0}, "exit_code": 0}
    done = api.agent(f"tasks/{older.id}/result", report)
    assert (done.status_code, done.json()["status"]) == (200, "succeeded")
    assert done.json()["result"] == {"killed": True, "count": 0}
    assert done.json()["finished_at"] and done.json()["error"] is None


def test_a_failed_task_keeps_stderr_as_its_error(api: Api, store: Store) -> None:
    task = store.tasks.add(1, "iperf_client_run", {})
    api.agent("tasks/claim")
    report = {"status": "failed", "result": None, "stderr": "no route", "exit_code": 1}
    answer = api.agent(f"tasks/{task.id}/result", report).json()
    assert (answer["status"], answer["error"], answer["result"]) == ("failed", "no route", None)


def test_repeating_started_or_result_names_the_current_status(api: Api, store: Store) -> None:
    task = store.tasks.add(1, "iperf_client_run", {})
    api.agent("tasks/claim")
    api.agent(f"tasks/{task.id}/started")
    again = api.agent(f"tasks/{task.id}/started")
    assert again.status_code == 400
    assert again.json()["detail"]["error"] == "invalid_task_state"
    assert again.json()["detail"]["details"] == {"current_status": "running"}
    report = {"status": "failed", "result": {}, "stderr": "", "exit_code": 1}
    assert api.agent(f"tasks/{task.id}/result", report).status_code == 200
    again = api.agent(f"tasks/{task.id}/result", report)
    assert again.status_code == 400
    assert again.json()["detail"]["details"] == {"current_status": "failed"}


def test_a_pending_task_takes_no_result(api: Api, store: Store) -> None:
    task = store.tasks.add(1, "kill_all", {})
    answer = api.agent(f"tasks/{task.id}/result", {"status": "succeeded"})
    assert answer.json()["detail"]["details"] == {"current_status": "pending"}


def test_further_results_of_a_server_task_do_not_change_its_status(api: Api, store: Store) -> None:
    task = store.tasks.add(1, "iperf_server_start", {"port": 5201})
    api.agent("tasks/claim")
    api.agent(f"tasks/{task.id}/result", {"status": "succeeded", "result": {"started": True}})
    further = {"status": "failed", "result": {"end": 1}, "stderr": "gone"}
    answer = api.agent(f"tasks/{task.id}/result", further)
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["result"]) == ("succeeded", {"end": 1})
    assert answer.json()["error"] is None


@pytest.mark.parametrize("call", ["tasks/1/started", "tasks/1/result", "tasks/99/result"])
def test_another_agents_task_is_not_found(api: Api, store: Store, call: str) -> None:
    store.tasks.add(2, "kill_all", {})
    answer = api.agent(call, {"status": "succeeded"})
    assert answer.status_code == 400
    assert answer.json()["detail"]["error"] == "task_not_found"


@pytest.mark.parametrize(
    ("headers", "status", "error"),
    [
        ({"X_API_Version": None}, 400, "missing_api_version"),
        ({"X_API_Version": "2"}, 426, "unsupported_api_version"),
        ({"X_AGENT_NAME": None}, 401, "missing_agent_headers"),
        ({"X_AGENT_KEY": None}, 401, "missing_agent_headers"),
        ({"X_AGENT_KEY": "key-2"}, 401, "invalid_agent_key"),
        ({"Content_Encoding": "gzip"}, 400, "bad_encoding"),
    ],
)
def test_wrong_headers_are_refused(
    api: Api, headers: dict[str, str | None], status: int, error: str
) -> None:
    data = gzip.compress(b"{}") if "Content_Encoding" in headers else b"{}"
    answer = api.agent("tasks/claim", data=data, **headers)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (status, error)


def test_an_unknown_agent_is_not_found(api: Api) -> None:
    answer = api.agent("register", {"ip_address": "127.0.0.1"}, X_AGENT_NAME="nobody")
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("heartbeat", HEARTBEAT),
        ("tasks/claim", {}),
        ("tasks/1/started", {}),
        ("tasks/1/result", {"status": "failed"}),
    ],
)
def test_a_disabled_agent_is_refused_except_at_register(
    api: Api, store: Store, call: str, body: Any
) -> None:
    store.agents.update(1, {"disabled": True})
    answer = api.agent(call, body)
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
    assert api.agent("register", {"ip_address": "127.0.0.1"}).json()["disabled"] is True


@pytest.mark.parametrize(
    ("call", "data"),
    [
        ("register", b"{}"),
        ("register", b'{"ip_address": 5}'),
        ("heartbeat", b'{"ip_address": "127.0.0.1"}'),
        ("heartbeat", b'{"ip_address": "127.0.0.1", "running": [{"type": "other"}]}'),
        ("tasks/claim", b""),
        ("tasks/claim", b"[]"),
        ("tasks/claim", b"{oops"),
        ("tasks/1/started", b'{"pid": "seven"}'),
        ("tasks/1/result", b'{"status": "running"}'),
        ("tasks/1/result", b'{"status": "failed", "result": []}'),
        ("tasks/1/result", b'{"status": "failed", "result": "words"}'),
        ("tasks/1/result", b'{"status": "failed", "stderr": null}'),
        ("tasks/1/result", b'{"status": "failed", "result": {"a": "\xff"}}'),
        ("tasks/1/result", b'{"status": "failed", "result": {"a": ' + b"[" * 100_000),
    ],
)
def test_an_invalid_body_is_422(api: Api, store: Store, call: str, data: bytes) -> None:
    store.tasks.add(1, "kill_all", {})
    store.tasks.claim(1)
    answer = api.agent(call, data=data)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], list)
    assert store.tasks.get(1).status == "accepted"


def test_text_outside_ascii_arrives_as_it_was_sent(api: Api, store: Store) -> None:
    task = store.tasks.add(1, "kill_all", {})
    store.tasks.claim(1)
    data = '{"status": "failed", "result": {"a": "é"}, "stderr": "Gerät"}'.encode()
    answer = api.agent(f"tasks/{task.id}/result", data=data).json()
    assert (answer["error"], answer["result"]) == ("Gerät", {"a": "é"})


def test_a_result_over_the_front_end_limit_is_413_without_json(api: Api, store: Store) -> None:
    store.tasks.add(1, "kill_all", {})
    task = store.tasks.claim(1)
    assert task
    answer = api.agent(f"tasks/{task.id}/result", data=b" " * (100 * 1024**2 + 1))
    assert answer.status_code == 413
    assert "json" not in answer.headers["Content-Type"]
    assert api.agent("tasks/claim").status_code == 200


def status_of(url: str, path: str, length: int, **headers: str) -> int:
    """The status of a call whose body is announced, and does not come."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.putrequest("POST", path)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_nothing_is_kept_of_a_large_body_but_of_a_known_agents_result(
    api: Api, store: Store
) -> None:
    """Each of some thousand connections could bring one."""
    large = 99 * 1024**2
    known = {"X_AGENT_NAME": "a1", "X_AGENT_KEY": "key-1", "X_API_Version": "1"}
    stranger = {**known, "X_AGENT_KEY": "key-2"}
    assert status_of(api.url, "/v1/auth/login", 5000) == 413
    assert status_of(api.url, "/v1/agent/tasks/claim", large, **known) == 413
    assert status_of(api.url, "/v1/agent/heartbeat", large, **known) == 413
    assert status_of(api.url, "/v1/agent/tasks/1/result", large, **stranger) == 401
    assert status_of(api.url, "/v1/exercises", large) == 403


def test_a_result_just_below_the_limit_is_accepted_whole(api: Api, store: Store) -> None:
    task = store.tasks.add(1, "iperf_client_run", {})
    store.tasks.claim(1)
    filler = b"x" * (99 * 1024**2)
    data = b'{"status": "succeeded", "result": {"end": {}, "filler": "' + filler + b'"}}'
    assert api.agent(f"tasks/{task.id}/result", data=data).status_code == 200
    assert len(memoryview(store.tasks.get(task.id).result)) > len(filler)


def test_an_unknown_path_is_a_404_that_is_not_the_managers_own(api: Api) -> None:
    answer = api.agent("nothing")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    answer = api.session.get(f"{api.url}/v1/agent/register", timeout=30)
    assert (answer.status_code, "POST" in answer.headers["Allow"]) == (405, True)


def test_an_agent_disabled_during_an_upload_is_refused(store: Store) -> None:
    task = store.tasks.add(1, "kill_all", {})
    store.tasks.claim(1)
    store.agents.update(1, {"disabled": True})
    with pytest.raises(Refused, match="disabled"):
        store.tasks.report(1, task.id, "succeeded")
