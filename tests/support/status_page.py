"""Asking a status page."""

from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tests.support.harness import AgentProcess, Bench


@dataclass(frozen=True)
class Shown:
    """An agent, where its status page is, and the port of the server that it runs."""

    bench: Bench
    agent: AgentProcess
    url: str
    port: int


@dataclass(frozen=True)
class Answer:
    """What the status page said."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)


def ask(url: str, path: str, method: str = "GET", **headers: str) -> Answer:
    """One request."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    found = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, found, body)
