"""Who may ask the dev Manager what: a web page whose name points at loopback may nothing."""

import pytest
import requests

from agent.dev.server import DevManager
from agent.dev.store.store import Store
from tests.support.dev_client import DEADLINE_SECONDS, Api

AGENT = {"X-AGENT-NAME": "a1", "X-AGENT-KEY": "key-1", "X-API-Version": "1"}
FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "localhost.",
    "10.0.0.1",
    "0.0.0.0",
    "a@localhost",
    "evil.example#@localhost",
    "localhost/evil.example",
    "localhost?",
    "localhost, evil.example",
    "[::1",
]
CALLS = [
    ("POST", "/v1/auth/login", {"username": "admin", "password": "admin123"}),
    ("GET", "/v1/agents", None),
    ("POST", "/v1/tasks", {"agent_id": 1, "type": "kill_all"}),
    ("GET", "/v1/exercises", None),
    ("POST", "/v1/agent/register", {"ip_address": "192.0.2.1"}),
    ("POST", "/v1/agent/heartbeat", {"ip_address": "192.0.2.1", "running": []}),
    ("POST", "/v1/agent/tasks/claim", {}),
    ("GET", "/healthz", None),
    ("GET", "/nothing", None),
    ("GET", "/", None),
    ("GET", "/tests.csv", None),
]


@pytest.mark.parametrize("host", FOREIGN)
def test_no_route_answers_to_a_foreign_name(
    manager: DevManager, store: Store, api: Api, host: str
) -> None:
    """As a browser sends it: the page's own name is the Host and the Origin of its requests."""
    assert api.login().ok
    proofs = {"Authorization": f"Bearer {api.token}", **AGENT}
    for method, path, body in CALLS:
        answer = requests.request(
            method,
            manager.url + path,
            json=body,
            headers={"Host": host, "Origin": f"http://{host}", **proofs},
            timeout=DEADLINE_SECONDS,
        )
        assert answer.status_code == 403, path
        assert "key-1" not in answer.text and "token" not in answer.text
    assert (store.agents.get(1).ip_address, store.tasks.find()) == ("127.0.0.1", [])


@pytest.mark.parametrize("host", ["localhost", "LocalHost:1", "127.9.9.9:8000", "[::1]"])
def test_every_route_answers_to_the_names_of_loopback(
    manager: DevManager, api: Api, host: str
) -> None:
    assert api.login().ok
    proofs = {"Authorization": f"Bearer {api.token}", **AGENT}
    for method, path, body in CALLS:
        answer = requests.request(
            method,
            manager.url + path,
            json=body,
            headers={"Host": host, **proofs},
            timeout=DEADLINE_SECONDS,
        )
        assert answer.status_code in (200, 201, 404), path


@pytest.mark.parametrize("listen", ["127.1", "::ffff:127.0.0.1", "localhost"])
def test_loopback_by_another_name_is_loopback(store: Store, listen: str) -> None:
    manager = DevManager(store, listen, 0)
    manager.start()
    try:
        url = f"http://127.0.0.1:{manager.port}/healthz"
        answers = [
            requests.get(url, headers={"Host": host}, timeout=DEADLINE_SECONDS).status_code
            for host in ("localhost", "evil.example")
        ]
        assert answers == [200, 403]
    finally:
        manager.stop()
