"""A Manager that misbehaves on the socket in whatever way a test says."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from socket import socket
from typing import Any

import gevent
from gevent.event import Event
from gevent.server import StreamServer


@dataclass(frozen=True)
class Request:
    """One request as it arrived. `socket` is there for answers that no bytes can express."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    socket: socket

    @property
    def call(self) -> str:
        """The last part of the path: register, heartbeat, claim, started, result."""
        return self.path.rpartition("/")[2]

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class FaultyManager:
    """Answers each request with the raw bytes that `answer(request)` returns.

    No bytes at all close the connection. `requests` keeps everything that arrived, in order.
    `answer` may also write to the request's socket itself, or wait. With `registers` the calls to
    `register` are answered well and not kept, for tests that are about other calls.
    `before_body` is called with a request's path before its body is read.
    """

    def __init__(self, answer: Callable[[Request], bytes]) -> None:
        self.answer = answer
        self.registers = False
        self.before_body: Callable[[str], object] = lambda path: None
        self.requests: list[Request] = []
        self._arrived = Event()
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """Close the listener and every connection."""
        self._server.stop(timeout=0.1)

    def wait_for(self, condition: Callable[[], object], timeout: float = 20) -> None:
        """Wait until `condition()` holds, looking after each request; fails the test if not."""
        with gevent.Timeout(timeout, AssertionError(f"no such request: {self.calls()}")):
            while not condition():
                self._arrived.clear()
                self._arrived.wait()

    def calls(self) -> list[str]:
        """The names of the calls that arrived, in order."""
        return [request.call for request in self.requests]

    def _serve(self, connection: socket, _: object) -> None:
        # An agent that is killed resets its connections.
        with suppress(ConnectionError), connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                method, path, _ = line.decode().split(" ", 2)
                headers = {}
                while (header := stream.readline()) not in (b"\r\n", b""):
                    name, _, value = header.decode().partition(":")
                    headers[name.strip().lower()] = value.strip()
                self.before_body(path)
                body = stream.read(int(headers.get("content-length", 0)))
                request = Request(method, path, headers, body, connection)
                if self.registers and request.call == "register":
                    connection.sendall(well(request))
                    continue
                self.requests.append(request)
                self._arrived.set()
                answer = self.answer(request)
                if not answer:
                    return
                connection.sendall(answer)


def reply(body: Any, status: int = 200, **headers: str) -> bytes:
    """An HTTP answer with a JSON body; headers are given with `_` for `-`."""
    return raw_reply(json.dumps(body).encode(), status, Content_Type="application/json", **headers)


def raw_reply(body: bytes, status: int = 200, **headers: str) -> bytes:
    """An HTTP answer with these very bytes as its body."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def well(request: Request) -> bytes:
    """What a Manager without tasks answers to each call."""
    answers: dict[str, Any] = {
        "register": {"id": 1, "name": "a1", "registration_key": "in-clear"},
        "heartbeat": {"pull_tasks": True},
        "claim": {"task": None},
        "healthz": {"ok": True},
    }
    if request.call in answers:
        return reply(answers[request.call])
    return reply({"id": int(request.path.split("/")[-2]), "status": "running"})
