"""The client's calls as they look on the wire."""

import json
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.errors import ManagerError, ManagerUnavailable, TaskRefused, TaskReplaced
from agent.manager.api import ManagerClient
from agent.manager.upload import Body
from agent.protocol import RunningRow, Task
from tests.support.answering import task
from tests.support.faulty_manager import Request, raw_reply, reply, well
from tests.support.sockets import MakeManager, access, client_of, client_with, silent

MIB = 1024**2


def test_each_call_is_a_post_with_its_body_and_the_agents_headers(faulty: MakeManager) -> None:
    manager = faulty(well)
    client = client_with(replace(access(manager.url), api_version=3))
    row = RunningRow("client", 5201, 77, 9, "2026-01-01T00:00:00.000Z")
    client.register("10.0.0.1", "Debian")
    client.send_heartbeat("10.0.0.1", [row])
    client.claim("claim-key")
    client.send_started(task(9), 77, "started-key")
    client.send_result(task(9), Body(b'{"status":"succeeded"}'), "result-key")
    assert [(request.method, request.path, request.json()) for request in manager.requests] == [
        ("POST", "/v1/agent/register", {"ip_address": "10.0.0.1", "operating_system": "Debian"}),
        (
            "POST",
            "/v1/agent/heartbeat",
            {
                "ip_address": "10.0.0.1",
                "running": [
                    {
                        "type": "client",
                        "port": 5201,
                        "pid": 77,
                        "task_id": 9,
                        "started_at": "2026-01-01T00:00:00.000Z",
                    }
                ],
            },
        ),
        ("POST", "/v1/agent/tasks/claim", {}),
        ("POST", "/v1/agent/tasks/9/started", {"pid": 77}),
        ("POST", "/v1/agent/tasks/9/result", {"status": "succeeded"}),
    ]
    for request in manager.requests:
        assert request.headers["x-agent-name"] == "a1"
        assert request.headers["x-agent-key"] == "key-1"
        assert request.headers["x-api-version"] == "3"
        assert request.headers["content-type"] == "application/json"
    (instance,) = {request.headers["x-agent-instance"] for request in manager.requests}
    client_of(manager).claim("claim-key")
    later = manager.requests.pop().headers["x-agent-instance"]
    assert uuid.UUID(instance) != uuid.UUID(later), "another start of the agent"
    keys = [request.headers["idempotency-key"] for request in manager.requests]
    assert keys[2:] == ["claim-key", "started-key", "result-key"]
    assert uuid.UUID(keys[0]) != uuid.UUID(keys[1])
    assert [request.headers.get("prefer") for request in manager.requests] == [
        *[None] * 2,
        "wait=20",
        *[None] * 2,
    ]


def test_each_call_uses_the_current_key(faulty: MakeManager) -> None:
    manager = faulty(well)
    keys = iter(["old", "new"])
    client = ManagerClient(access(manager.url), lambda: next(keys))
    client.claim("1")
    client.claim("1")
    assert [request.headers["x-agent-key"] for request in manager.requests] == ["old", "new"]


@pytest.mark.parametrize("key", ["old-key", 'a"quote\\and more'])
def test_the_key_is_removed_from_answers_that_are_kept(faulty: MakeManager, key: str) -> None:
    """As it is or as JSON writes it, and also when the key's file has another one by now."""
    keys = [key]

    def answer(request: Request) -> bytes:
        keys[0] = "new-key"
        return reply({"detail": {"error": "task_not_found", "you": key}, "and": key}, 400)

    client = ManagerClient(access(faulty(answer).url), lambda: keys[0])
    with pytest.raises(TaskRefused) as raised:
        client.send_result(task(7), Body(b"{}"), "1")
    assert json.loads(raised.value.answer)["detail"]["you"] == "[hidden]"
    assert key not in raised.value.answer.decode()


def test_the_health_check_sends_neither_name_nor_key(faulty: MakeManager) -> None:
    manager = faulty(well)
    assert client_of(manager).ask_health()[0] == 200
    (request,) = manager.requests
    assert (request.method, request.path) == ("GET", "/healthz")
    assert not [name for name in request.headers if name.startswith("x-agent")]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(faulty: MakeManager, status: int) -> None:
    other = faulty(well)
    manager = faulty(lambda request: raw_reply(b"", status, Location=other.url + request.path))
    with pytest.raises(ManagerUnavailable, match=str(status)):
        client_of(manager).send_heartbeat("10.0.0.1", [])
    assert other.requests == []


@pytest.mark.parametrize("target", [b"http://[bad", b"\xff\xfe", b"http://host:99999999/", b"//"])
def test_a_redirect_without_a_valid_url_is_an_unusable_answer(
    faulty: MakeManager, target: bytes
) -> None:
    head = b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\nLocation: " + target
    manager = faulty(lambda _: head + b"\r\n\r\n")
    with pytest.raises(ManagerUnavailable, match="301"):
        client_of(manager).send_heartbeat("10.0.0.1", [])


def test_a_claim_with_a_huge_answer_is_not_read_to_its_end(faulty: MakeManager) -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b" " * (2 * MIB)

    def send_and_wait(request: Request) -> bytes:
        request.socket.sendall(endless)
        return silent(request)

    manager = faulty(send_and_wait)
    with pytest.raises(ManagerUnavailable, match="not the Manager's"):
        client_of(manager).claim("key")


def test_a_result_is_accepted_if_a_large_answer_begins_with_its_task(faulty: MakeManager) -> None:
    manager = faulty(lambda request: raw_reply(b'{"id": 7, "result": %b}' % request.body))
    client = client_of(manager)
    body = Body(b'"' + b"x" * (2 * MIB) + b'"')
    client.send_result(task(7), body, "key")
    with pytest.raises(ManagerUnavailable, match="about task 7"):
        client.send_result(task(70), body, "key")
    manager.answer = lambda request: raw_reply(b'{"results": %b}' % request.body)
    with pytest.raises(ManagerUnavailable, match="not the Manager's"):
        client.send_result(task(7), body, "key")


BORN = "2026-01-02T03:04:05Z"
LATER = "2026-01-02T03:04:09+00:00"
SMALL, LARGE = Body(b'""'), Body(b'"' + b"x" * (2 * MIB) + b'"')
CREATED = Task(7, "iperf_client_run", created_at=BORN)


def taken_for(task_id: int, **fields: str) -> Callable[[Request], bytes]:
    """A Manager that takes each call for one about this task, and says so before the result."""
    head = json.dumps({"id": task_id, **fields}).encode()[:-1]
    return lambda request: raw_reply(head + b', "result": %b}' % request.body)


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (taken_for(8, created_at=BORN), ManagerUnavailable),
        (taken_for(7, created_at=LATER), TaskReplaced),
    ],
    ids=["id", "moment"],
)
def test_a_result_that_was_taken_for_another_tasks_is_not_delivered(
    faulty: MakeManager, answer: Callable[[Request], bytes], error: type[ManagerError], body: Body
) -> None:
    with pytest.raises(error):
        client_of(faulty(answer)).send_result(CREATED, body, "key")


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    "fields", [{"created_at": "2026-01-02 03:04:05.4"}, {}, {"created_at": ""}]
)
def test_a_result_is_delivered_when_the_answer_names_its_task(
    faulty: MakeManager, fields: dict[str, str], body: Body
) -> None:
    client_of(faulty(taken_for(7, **fields))).send_result(CREATED, body, "key")


def test_a_moment_within_the_payload_is_not_the_tasks(faulty: MakeManager) -> None:
    """The Manager writes the payload first."""
    payload = b'"payload": {"note": {"created_at": "%b"}}' % LATER.encode()
    head = b'{"id": 7, %b, "created_at": "%b", "result": ' % (payload, BORN.encode())
    manager = faulty(lambda request: raw_reply(head + request.body + b"}"))
    client_of(manager).send_result(CREATED, LARGE, "key")


def test_a_moment_within_the_result_itself_is_not_the_tasks(faulty: MakeManager) -> None:
    """In a large answer it comes after `result`, and is whatever the test's other side wrote."""
    client = client_of(faulty(taken_for(7)))
    inner = b'{"created_at": "%b", "x": "%b"}' % (LATER.encode(), b"x" * (2 * MIB))
    client.send_result(CREATED, Body(inner), "key")


@pytest.mark.parametrize("fields", [{"created_at": LATER}, {"type": "kill_all"}])
def test_started_that_was_taken_for_another_task_raises(
    faulty: MakeManager, fields: dict[str, str]
) -> None:
    manager = faulty(lambda _: reply({"id": 7, **fields}))
    with pytest.raises(TaskReplaced, match="another task 7"):
        client_of(manager).send_started(CREATED, 77, "key")
