"""Numbers that no program expects, in every place of a request that takes one: never a 500."""

from socket import SHUT_WR, create_connection

import pytest

from agent.dev.server import DevManager
from agent.dev.store.store import Store
from tests.support.dev_client import DEADLINE_SECONDS, Api

# Python's int() takes no more than 4,300 digits.
DIGITS = "9" * 5_000
WORDS = [
    DIGITS,
    "-" + DIGITS,
    "0" * 5_000 + "1",
    str(2**64),
    str(2**63),
    "-1",
    "0",
    "1e999",
    "-1e999",
    "1e400000000",
    "1e308",
    "-1e308",
    "1e-320",
    "1.5",
    "0." + DIGITS,
    "nan",
    "NaN",
    "inf",
    "-Infinity",
    "١٢٣",
    "²",
    "1_0",
    "+1",
    "0x1",
    "",
]
# What an operator may ask and an agent may say, with @ where a number is.
PATHS = [
    ("GET", "/v1/agents/@"),
    ("PUT", "/v1/agents/@"),
    ("POST", "/v1/agents/@/enable"),
    ("GET", "/v1/tasks/@"),
    ("POST", "/v1/tasks/@/cancel"),
    ("GET", "/v1/exercises/@"),
    ("POST", "/v1/exercises/@/tests"),
    ("POST", "/v1/exercises/@/start"),
    ("POST", "/v1/exercises/@/stop"),
    ("GET", "/v1/exercises/@/results"),
    ("GET", "/v1/tasks?agent_id=@"),
    ("GET", "/v1/agents?include_disabled=@"),
    ("GET", "/?test=@"),
    ("POST", "/tests/@/stop"),
]
BODIES = [
    ("tasks", '{"agent_id": @, "type": "kill_all"}'),
    ("tasks", '{"agent_id": 1, "type": "kill_all", "payload": {"x": @}}'),
    ("exercises", '{"name": "x", "duration_seconds": @}'),
    (
        "exercises/1/tests",
        '{"server_agent_id": @, "client_agent_id": @, "server_port": 1}',
    ),
    (
        "exercises/1/tests",
        '{"server_agent_id": 1, "client_agent_id": 2, "server_port": @}',
    ),
    (
        "exercises/1/tests",
        '{"server_agent_id": 1, "client_agent_id": 2, "server_port": 5201, "time_seconds": @}',
    ),
    (
        "exercises/1/tests",
        '{"server_agent_id": 1, "client_agent_id": 2, "server_port": 5201, "options": {"x": @}}',
    ),
    (
        "exercises/1/tests",
        '{"server_agent_id": 1, "client_agent_id": 2, "server_port": 5202,'
        ' "options": {"time": @, "parallel": @, "port": @, "bitrate": @, "omit": @}}',
    ),
]
CALLS = [
    ("tasks/@/started", "{}"),
    ("tasks/@/result", '{"status": "failed"}'),
    ("tasks/1/started", '{"pid": @}'),
    ("tasks/1/result", '{"status": "failed", "exit_code": @}'),
    ("tasks/1/result", '{"status": "failed", "result": {"x": @}}'),
    (
        "tasks/1/result",
        '{"status": "succeeded", "result": {"end": {"sum_sent": {"bits_per_second": @}}}}',
    ),
    (
        "tasks/1/result",
        '{"status": "succeeded", "result": {"end": {"sum_sent": {"retransmits": @}}}}',
    ),
    (
        "tasks/1/result",
        '{"status": "succeeded", "result": {"intervals":'
        ' [{"sum": {"bits_per_second": @, "start": @, "end": @, "seconds": @}}]}}',
    ),
    (
        "heartbeat",
        '{"ip_address": "127.0.0.1", "running": [{"type": "server", "port": @, "pid": 1}]}',
    ),
    (
        "heartbeat",
        '{"ip_address": "127.0.0.1", "running":'
        ' [{"type": "server", "port": 1, "pid": 1, "bits_per_second": @}]}',
    ),
]


@pytest.fixture(name="operator")
def fixture_operator(api: Api, store: Store) -> Api:
    """An operator of a Manager that has a test; its tasks are 1 and 2."""
    exercise = store.exercises.create("x", 10)
    store.exercises.add_test(exercise.id, 1, 2, 5201)
    store.exercises.start(exercise.id)
    assert api.login().ok
    return api


def assert_shown(operator: Api) -> None:
    """Whatever was taken can be told again."""
    for path in ("agents", "tasks", "exercises", "exercises/1/results"):
        assert operator.call("GET", path).status_code == 200, path
    for asked in ("", "?test=1", "?test=2"):
        page = operator.session.get(f"{operator.url}/{asked}", headers={"Accept": "text/html"})
        # Only some numbers are taken, and make a second test.
        assert page.status_code == 200 or (page.status_code, asked) == (404, "?test=2")


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word[:9])
def test_no_number_is_an_error_of_the_manager(operator: Api, store: Store, word: str) -> None:
    """A claim is made where a task waits, so that none of them has to."""
    admin = {"Authorization": f"Bearer {operator.token}", "Origin": operator.url}
    agent = {"X-AGENT-NAME": "a1", "X-AGENT-KEY": "key-1", "X-API-Version": "1"}
    calls = [(method, path, "{}", admin) for method, path in PATHS]
    calls += [("POST", f"/v1/{path}", body, admin) for path, body in BODIES]
    calls += [("POST", f"/v1/agent/{path}", body, agent) for path, body in CALLS]
    for preference in ("wait=@", 'wait="@"', "wait=@, wait=@"):
        store.tasks.add(1, "kill_all", {})
        prefer = preference.replace("@", word.encode().decode("latin-1"))
        calls.append(("POST", "/v1/agent/tasks/claim", "{}", {**agent, "Prefer": prefer}))
    for method, path, body, headers in calls:
        url = operator.url + path.replace("@", word)
        content = body.replace("@", word).encode()
        answer = operator.session.request(
            method, url, data=content, headers=headers, timeout=DEADLINE_SECONDS
        )
        assert answer.status_code < 500, (method, path, body)
    assert_shown(operator)


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word[:9])
def test_no_length_is_an_error_of_the_manager(manager: DevManager, word: str) -> None:
    with create_connection(("127.0.0.1", manager.port), DEADLINE_SECONDS) as connection:
        head = f"POST /v1/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {word}\r\n\r\n"
        connection.sendall(head.encode() + b"{}")
        connection.shutdown(SHUT_WR)
        status = connection.makefile("rb").readline()
    assert status.startswith(b"HTTP/1.1 4"), status
