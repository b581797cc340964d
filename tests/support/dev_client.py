"""A client of the dev Manager's two APIs."""

from typing import Any, Self

import requests

# Far above what an answer on loopback takes, far below a test's time-out.
DEADLINE_SECONDS = 30


class Api:
    """Calls a dev Manager over real sockets, as the agent a1 or as the operator."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        self.token = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def agent(
        self, call: str, body: Any = None, data: bytes | None = None, **headers: str | None
    ) -> requests.Response:
        """One call of an agent. Headers have `_` for `-`; None leaves one out."""
        sent: dict[str, str | None] = {
            "X-AGENT-NAME": "a1",
            "X-AGENT-KEY": "key-1",
            "X-API-Version": "1",
            "Content-Type": "application/json",
        }
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        given = {name: value for name, value in sent.items() if value is not None}
        return self.session.post(
            f"{self.url}/v1/agent/{call}",
            json=({} if body is None else body) if data is None else None,
            data=data,
            headers=given,
            timeout=DEADLINE_SECONDS,
        )

    def login(self, password: str = "admin123") -> requests.Response:
        """Log in; later calls carry the token."""
        answer = self.call("POST", "auth/login", {"username": "admin", "password": password})
        if answer.ok:
            self.token = answer.json()["access_token"]
        return answer

    def call(self, method: str, path: str, body: Any = None) -> requests.Response:
        """One call of an operator."""
        return self.session.request(
            method,
            f"{self.url}/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.token}"} if self.token else {},
            timeout=DEADLINE_SECONDS,
        )
