"""An HTTP server that no peer can keep from its other work, whatever it sends or does not read.

gevent changes to another greenlet only where it would have to wait. For a peer that always has
data ready, and takes all that it is sent, it never has to, and no time-out would fire. So each read
here waits for the event loop's next turn. Many peers that are ready at once share one turn, and
have only a short time of it. What a peer may have is counted: bytes and seconds of a request, and
connections in all.
"""

import socket
from contextlib import suppress
from io import BufferedReader, RawIOBase
from typing import Any, NamedTuple

import gevent
import structlog
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer
from gevent.socket import wait_read  # type: ignore[attr-defined]

from agent.turns import await_turn

# Of a request line and its headers.
MAX_HEAD_BYTES = 64 * 1024
# For a peer that sends requests before it has the answer to the last one.
PAUSE_SECONDS = 0.1
# Where an application finds the socket of a request's connection.
SOCKET = "agent.socket"

log = structlog.get_logger()


class Limits(NamedTuple):
    """Connections at a time, and of each request its seconds and the bytes of its body.

    A request's seconds begin with the end of the one before it, and end with its answer's.
    """

    connections: int
    seconds: float
    bytes: int


class Handler(WSGIHandler):
    """One connection. `socket` is closed at its end."""

    def __init__(self, connection: socket.socket, address: Any, server: "Server") -> None:
        self._limits = server.limits
        self._incoming = _Incoming(connection)
        self._deadline = gevent.get_hub().loop.timer(0, self._limits.seconds)
        incoming = BufferedReader(self._incoming)
        super().__init__(connection, address, server, incoming)  # type: ignore[no-untyped-call]

    def handle(self) -> None:
        """Serve the connection until it ends."""
        try:
            # The answer to what is no request may find the peer gone.
            with suppress(OSError):
                super().handle()  # type: ignore[no-untyped-call]
        finally:
            self._deadline.close()

    def get_environ(self) -> dict[str, Any]:
        """The WSGI environment; under SOCKET it has the connection's."""
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        return {**environ, SOCKET: self.socket}

    def handle_one_request(self) -> Any:
        """Serve one request; the result is for pywsgi."""
        self._deadline.again(hang_up, self.socket)
        self._incoming.left = MAX_HEAD_BYTES
        goes_on = super().handle_one_request()  # type: ignore[no-untyped-call]
        self._incoming.left = 0
        # A peer that has sent more already would have more than its turn. An agent does so only
        # after a refusal that came before the end of its body.
        if goes_on is True and self.rfile.peek(1):
            gevent.sleep(PAUSE_SECONDS)
        return goes_on

    def read_request(self, line: str) -> Any:
        """Read the headers; what follows is the body. Raises ValueError."""
        found = super().read_request(line)  # type: ignore[no-untyped-call]
        # http.client takes for a whole head what was cut short.
        if not self._incoming.left:
            raise ValueError("the head of the request has no end")
        self._incoming.left = self._limits.bytes
        return found

    def handle_error(self, kind: type[BaseException], error: object, traceback: object) -> None:
        """Log a bug and answer 500; end the connection when its peer or the server's stop did it.

        Once an answer's head is on its way, only the peer makes the rest fail.
        """
        if self.headers_sent or issubclass(kind, gevent.GreenletExit):
            self.close_connection = True
        else:
            super().handle_error(kind, error, traceback)  # type: ignore[no-untyped-call]

    def _handle_client_error(self, error: Exception) -> tuple[str, bytes]:
        """Answer 400; pywsgi would print some of them. Anybody can send as many as he likes."""
        log.debug("bad request", peer=str(self.client_address), error=repr(error)[:200])
        return "400", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Server(WSGIServer):
    """Serves a WSGI application. A new connection too many ends the oldest one."""

    # Connections that wait to be accepted. The kernel answers none beyond them, and their peers
    # try again after a second, or three.
    backlog = 4096

    def __init__(self, address: tuple[str, int], application: Any, limits: Limits) -> None:
        self.limits = limits
        self._connections: dict[socket.socket, None] = {}
        # At a time; of more, the first would be ended before they were served.
        self.max_accept = max(1, limits.connections // 8)
        super().__init__(  # type: ignore[no-untyped-call]
            address,
            application,
            # Without a pool the server would not know its greenlets, and could not end them.
            spawn=Pool(),
            log=None,
            # What an application says of its errors.
            error_log=log,
            handler_class=Handler,
            # Spares a reverse look-up of the address.
            environ={"SERVER_NAME": address[0]},
        )

    def init_socket(self) -> None:
        """Listen; raises OSError, whose `strerror` is the system's, without the address."""
        try:
            super().init_socket()  # type: ignore[no-untyped-call]
        except OSError as error:
            error.strerror = str(error.strerror).partition(": ")[0]
            raise

    def do_handle(self, connection: socket.socket, address: Any) -> None:
        """Serve a new connection in a greenlet of its own."""
        if len(self._connections) >= self.limits.connections:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            hang_up(oldest)
        self._connections[connection] = None
        super().do_handle(connection, address)  # type: ignore[no-untyped-call]

    def do_close(self, connection: socket.socket, *rest: Any) -> None:
        """Forget a connection that has ended."""
        self._connections.pop(connection, None)
        super().do_close(connection, *rest)  # type: ignore[no-untyped-call]


class _Incoming(RawIOBase):
    """What a peer sends. After the bytes that are `left` it is at its end.

    None are left once the peer has sent its last.
    """

    left = 0

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.left:
            return 0
        # gevent.sleep(0) would let 50 of them have a turn before the loop looks at a socket.
        wait_read(self._connection.fileno())
        await_turn()
        got = self._connection.recv_into(memoryview(buffer)[: self.left])
        self.left = self.left - got if got else 0
        return got


def hang_up(connection: socket.socket) -> None:
    """End a connection. Whoever waits for it finds it at its end, and nobody waits here."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
