"""A real forward proxy: it passes on requests and tunnels, or does what a bad one does."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socket import create_connection, socket
from urllib.parse import urlsplit

import gevent
from gevent.server import StreamServer

from tests.support.faulty_manager import raw_reply
from tests.support.sockets import pass_on

PAGE = b"<!DOCTYPE html><html><body>This is the proxy speaking.</body></html>"

Answer = Callable[["Proxy"], bytes]


def page(status: int) -> bytes:
    """The proxy's own page with that status."""
    return raw_reply(PAGE, status, Content_Type="text/html", Connection="close")


class Proxy:
    """Passes everything on to that Manager, whatever it is called.

    `asked` are the names or addresses, with ports, that it was asked for: it alone knows what they
    mean. With `login` ("user:password") it wants that, with `refusal` it answers everybody so, and
    a `silent` one takes connections and never says a word.
    """

    def __init__(
        self,
        manager_url: str,
        login: str = "",
        refusal: bytes = b"",
        silent: bool = False,
        here: str = "127.0.0.1",
    ) -> None:
        """Listen `here`, on any free port."""
        self.asked: list[str] = []
        self.manager = urlsplit(manager_url).netloc
        self.login, self.refusal, self.silent = login, refusal, silent
        self._server = StreamServer((here, 0), self._serve)
        self._server.start()
        self.host = f"{here}:{self._server.server_port}"

    @property
    def url(self) -> str:
        """Its URL for those who know the login."""
        return f"http://{self.login}@{self.host}" if self.login else f"http://{self.host}"

    def stop(self) -> None:
        """Close the listener and every connection."""
        self._server.stop(timeout=0.1)

    def _serve(self, connection: socket, _: object) -> None:
        with suppress(OSError), connection:
            head = _head_of(connection)
            if self.silent:
                connection.recv(1)
                return
            if not head[:1].isalpha():
                connection.sendall(page(400))
                return
            method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
            self.asked.append(target if method == "CONNECT" else urlsplit(target).netloc)
            wanted = b"Proxy-Authorization: Basic " + base64.b64encode(self.login.encode())
            if self.refusal or self.login and wanted not in head:
                connection.sendall(self.refusal or page(407))
                return
            host, _, port = self.manager.rpartition(":")
            with create_connection((host, int(port))) as onwards:
                first = b"HTTP/1.1 200 Connection established\r\n\r\n"
                if method != "CONNECT":
                    onwards.sendall(self._passed_on(method, urlsplit(target).path, head))
                up = gevent.spawn(pass_on, connection, onwards)
                if method != "CONNECT":
                    # Say so, or the agent would send its next one while this connection ends.
                    status, _, rest = onwards.recv(65536).partition(b"\r\n")
                    first = status + b"\r\nConnection: close\r\n" + rest
                connection.sendall(first)
                down = gevent.spawn(pass_on, onwards, connection)
                gevent.wait([up, down], count=1)
                gevent.killall([up, down])

    def _passed_on(self, method: str, path: str, head: bytes) -> bytes:
        """A request for the Manager: the only one of its connection, or the next came by unseen.

        A dev Manager on loopback answers to no other name than that.
        """
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.manager}", "Connection: close"]
        fields, _, body = head.partition(b"\r\n\r\n")
        for line in fields.decode().split("\r\n")[1:]:
            if line.partition(":")[0].lower() not in ("host", "connection"):
                lines.append(line)
        return "\r\n".join([*lines, "", ""]).encode() + body


def _head_of(connection: socket) -> bytes:
    """What is sent until an empty line, or with it already; only the beginning of a handshake."""
    head = b""
    while b"\r\n\r\n" not in head and (piece := connection.recv(65536)):
        head += piece
        if not head[:1].isalpha():
            break
    return head


@contextmanager
def proxy(manager_url: str, **how: str | bytes | bool) -> Iterator[Proxy]:
    """A proxy for as long as the block lasts."""
    made = Proxy(manager_url, **how)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.stop()
