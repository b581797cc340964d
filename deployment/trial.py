"""Runs one test from agent1 to agent2 through a Manager's admin API, and prints its figures.

docker-compose.yml runs it with MANAGER_URL and ADMIN_PASSWORD. If the test fails, it exits with 1
and a line that says why.
"""

import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError, URLError

SECONDS = 5
PORT = 5201
# Seconds to wait for the Manager, for the agents, and for the test's end.
PATIENCE = 60
FINAL = ("succeeded", "failed", "canceled", "timed_out")


class Admin:
    """The admin API of one Manager."""

    def __init__(self, url: str, password: str) -> None:
        """Log in."""
        self._url = url
        self._headers = {"Content-Type": "application/json"}
        login = self.post("/auth/login", {"username": "admin", "password": password})
        self._headers["Authorization"] = f"Bearer {login['access_token']}"

    def get(self, path: str) -> Any:
        """Send a GET and return the decoded answer; raises OSError without a success."""
        return self._call(urllib.request.Request(f"{self._url}/v1{path}", headers=self._headers))

    def post(self, path: str, body: Any = None) -> Any:
        """Send a POST, otherwise like `get`."""
        data = json.dumps(body or {}).encode()
        request = urllib.request.Request(f"{self._url}/v1{path}", data, self._headers)
        return self._call(request)

    def _call(self, request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


def eventually(what: str, look: Callable[[], Any]) -> Any:
    """Call `look` every half second until it returns something; exits with 1 after PATIENCE."""
    until = time.monotonic() + PATIENCE
    while not (found := look()):
        if time.monotonic() > until:
            sys.exit(f"{what}: not within {PATIENCE} s")
        time.sleep(0.5)
    return found


def login(url: str, password: str) -> Admin | None:
    """The admin API, or None if no Manager answers; raises HTTPError if it refuses the login."""
    try:
        return Admin(url, password)
    except HTTPError:
        raise
    except URLError:
        return None


def main() -> None:
    """Wait for the Manager and the agents, run the test, and print its result."""
    url, password = os.environ["MANAGER_URL"], os.environ["ADMIN_PASSWORD"]
    # Some engines start this before the Manager is healthy, for example podman before 4.6.
    admin = eventually("the Manager", lambda: login(url, password))

    def online() -> dict[str, int]:
        ids = {agent["name"]: agent["id"] for agent in admin.get("/agents?status=online")}
        return ids if {"agent1", "agent2"} <= ids.keys() else {}

    ids = eventually("both agents online", online)
    exercise = admin.post("/exercises", {"name": "trial", "duration_seconds": SECONDS})
    plan = {
        "client_agent_id": ids["agent1"],
        "server_agent_id": ids["agent2"],
        "server_port": PORT,
    }
    test = admin.post(f"/exercises/{exercise['id']}/tests", plan)
    admin.post(f"/exercises/{exercise['id']}/start")
    path = f"/tasks/{test['client_task']['id']}"
    client = eventually(
        "the test's end", lambda: task if (task := admin.get(path))["status"] in FINAL else None
    )
    if client["status"] != "succeeded":
        sys.exit(f"the test {client['status']}: {client['error']}")
    end = client["result"]["end"]
    sent, received = (end[name]["bits_per_second"] / 1e9 for name in ("sum_sent", "sum_received"))
    print(f"agent1 to agent2, TCP, {SECONDS} s: sent {sent:.2f}, received {received:.2f} Gbit/s")


if __name__ == "__main__":
    main()
