"""Servers that do with a connection whatever a test says, and a client's way to them."""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socket import SO_LINGER, SOL_SOCKET, socket
from ssl import SSLContext

import gevent
from gevent.server import StreamServer

from agent.config.settings import Config, read_settings
from agent.manager.api import ManagerClient
from tests.support.faulty_manager import FaultyManager, Request

MakeManager = Callable[[Callable[[Request], bytes]], FaultyManager]


def access(url: str) -> Config:
    """How agent a1 reaches a Manager there."""
    return read_settings({"manager_url": url, "agent_name": "a1"}, {"AGENT_KEY": "key-1"})


def client_with(settings: Config) -> ManagerClient:
    """The client that these settings make."""
    return ManagerClient(settings, lambda: settings.agent_key)


def client_of(manager: FaultyManager) -> ManagerClient:
    """Agent a1's client of that Manager."""
    return client_with(access(manager.url))


@contextmanager
def serving(handle: Callable[[socket], None], context: SSLContext | None = None) -> Iterator[str]:
    """A server that calls `handle` with each connection, of TLS with a context; gives its URL."""
    tls = {"ssl_context": context} if context else {}
    server = StreamServer(("127.0.0.1", 0), lambda connection, _: handle(connection), **tls)
    server.start()
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.stop()


def relay(one: socket, other: socket) -> None:
    """Pass on what each of two connections says to the other, until `one` has ended."""
    back = gevent.spawn(pass_on, other, one)
    try:
        pass_on(one, other)
    finally:
        back.kill()


def pass_on(source: socket, sink: socket) -> None:
    """Send on what one connection says to another, until it ends."""
    with suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)


def reset(connection: socket) -> None:
    """Close a connection the hard way: its peer gets a reset."""
    connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def silent(request: Request) -> bytes:
    """An answer that never comes, for as long as the agent stays on the line."""
    request.socket.recv(1)
    return b""
