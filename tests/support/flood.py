"""`python -m tests.support.flood KIND URL`: a client that sends what no client should.

It begins anew as soon as a connection ends, until it is killed.
"""

import itertools
import os
import resource
import select
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

# More connections at a time than any of the servers has descriptors or places for.
CONNECTIONS = 5_000
BLOCK = 64 * 1024
DIGITS = b"9" * 5_000


class Target:
    """The server, and what a plain request for the page in question is."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self.path = (parts.path or "/").encode()
        self.request = self.head("GET") + b"\r\n"

    def connect(self) -> socket.socket:
        """A new connection."""
        return socket.create_connection(self._address, timeout=10)

    def head(self, method: str, *headers: bytes, version: bytes = b"HTTP/1.1") -> bytes:
        """A request with these headers, whose end is missing."""
        lines = [method.encode() + b" " + self.path + b" " + version, b"Host: localhost", *headers]
        return b"\r\n".join(lines) + b"\r\n"


def endlessly(target: Target, first: bytes, then: Iterable[bytes], reads: bool = True) -> None:
    """Send all of that on one connection, reading what comes unless told otherwise."""
    connection = target.connect()
    with connection:
        connection.setblocking(False)
        # What is left to send of the blocks so far.
        waiting = first
        for block in itertools.chain(then, itertools.repeat(b"")):
            waiting += block
            while waiting or not block:
                wanted = [connection] if reads else []
                readable, writable, _ = select.select(
                    wanted, [connection] if waiting else [], [], 10
                )
                if readable and not connection.recv(BLOCK):
                    return
                if writable:
                    waiting = waiting[connection.send(waiting) :]


def repeated(block: bytes) -> Iterator[bytes]:
    """Blocks of about 64 KiB that are made of this one."""
    return itertools.repeat(block * (BLOCK // len(block) + 1))


def _stream(first: Callable[[Target], bytes], block: bytes) -> Callable[[Target], None]:
    """What endless data after a beginning is."""
    return lambda target: endlessly(target, first(target), repeated(block))


def pipelined(target: Target) -> None:
    """Request after request on one connection, whose answers are read."""
    endlessly(target, b"", repeated(target.request))


def deaf(target: Target) -> None:
    """Request after request on many connections, none of whose answers is read."""
    held = []
    for _ in range(100):
        with suppress(OSError):
            connection = target.connect()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            connection.setblocking(False)
            held.append(connection)
    for _ in range(100):
        for connection in held:
            with suppress(OSError):
                connection.send(target.request * 100)
        select.select([], [], [], 0.01)


def requests_only(target: Target) -> None:
    """Thousands of connections one after the other, each with one request."""
    with target.connect() as connection:
        connection.sendall(target.request)
        connection.recv(BLOCK)


def resetting(target: Target) -> None:
    """A reset in the middle of the answer."""
    with target.connect() as connection:
        connection.sendall(target.request)
        connection.recv(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(target: Target) -> None:
    """Thousands of connections at a time that say nothing."""
    held = []
    for _ in range(CONNECTIONS):
        with suppress(OSError):
            held.append(target.connect())
    select.select([], [], [], 5)


def slow(target: Target) -> None:
    """A byte at a time, on many connections."""
    held = [target.connect() for _ in range(200)]
    for byte in target.head("GET") + b"X-Long: " + b"a" * 1_000:
        for connection in held:
            with suppress(OSError):
                connection.send(bytes([byte]))
        select.select([], [], [], 0.01)


def noise(target: Target) -> None:
    """Lines that are no HTTP."""
    endlessly(target, b"\0\xff\r\n", (os.urandom(BLOCK) for _ in itertools.repeat(None)))


def tls(target: Target) -> None:
    """A TLS hello."""
    context = ssl.create_default_context()
    with target.connect() as connection, suppress(OSError):
        context.wrap_socket(connection, server_hostname="localhost")


def _chunked(target: Target) -> bytes:
    return target.head("POST", b"Transfer-Encoding: chunked") + b"\r\n"


def _with_length(length: bytes, *more: bytes) -> Callable[[Target], bytes]:
    return lambda target: target.head("POST", b"Content-Length: " + length, *more) + b"\r\n"


def _old(version: bytes) -> Callable[[Target], None]:
    """Request after request of an old version of HTTP."""

    def send(target: Target) -> None:
        if version:
            request = target.head("GET", b"Connection: keep-alive", version=version) + b"\r\n"
        else:
            request = b"GET " + target.path + b"\r\n"
        endlessly(target, b"", repeated(request))

    return send


KINDS: dict[str, Callable[[Target], None]] = {
    "pipelined": pipelined,
    "deaf": deaf,
    "one-request": requests_only,
    "reset": resetting,
    "silent": silent,
    "slow": slow,
    "noise": noise,
    "tls": tls,
    "request-line": _stream(lambda _: b"GET /", b"a"),
    "empty-lines": _stream(lambda _: b"", b"\r\n"),
    "headers": _stream(lambda target: target.head("GET"), b"X: y\r\n"),
    "header": _stream(lambda target: target.head("GET") + b"X: ", b"a"),
    "folded-header": _stream(lambda target: target.head("GET") + b"X: y", b"\r\n y"),
    "body": _stream(_with_length(b"1000000000000000000"), b"a"),
    "long-length": _stream(_with_length(DIGITS), b"a"),
    "expect": _stream(_with_length(b"1000000000", b"Expect: 100-continue"), b"a"),
    "chunks": _stream(_chunked, b"1\r\na\r\n"),
    "large-chunks": _stream(_chunked, b"10000\r\n" + b"a" * 0x10000 + b"\r\n"),
    "chunk-extension": _stream(_chunked, b"1;" + b"a" * 8_000 + b"\r\na\r\n"),
    "endless-extension": _stream(lambda target: _chunked(target) + b"1;", b"a"),
    "no-chunk": _stream(_chunked, b"\r\n"),
    "trailers": _stream(lambda target: _chunked(target) + b"0\r\n", b"X: y\r\n"),
    "http-0.9": _old(b""),
    "http-1.0": _old(b"HTTP/1.0"),
    "http-long": _old(b"HTTP/" + DIGITS + b".1"),
    "http-1": _old(b"HTTP/1"),
}


def main(kind: str, url: str) -> None:
    """Flood that server until killed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    target = Target(url)
    print("flooding", flush=True)
    while True:
        with suppress(OSError):
            KINDS[kind](target)


if __name__ == "__main__":
    main(*sys.argv[1:])
