"""What one peer may have of our HTTP servers, over real sockets. The floods are in tests/faults."""

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
import pytest
from structlog.testing import capture_logs

from agent.serving import MAX_HEAD_BYTES, Limits, Server
from tests.support.harness import hub_gaps, until
from tests.support.sockets import reset

LARGE = 50 * 10**6
BUSY_SECONDS = 0.03
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
MakeServer = Callable[..., Server]


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """It reads the body and answers with its length, or with much at /large; /bug has a bug.

    /busy takes the processor for a while, and /error tells of an error.
    """
    if environ["PATH_INFO"] == "/error":
        environ["wsgi.errors"].write("an error of the application\n")
    if environ["PATH_INFO"] == "/bug":
        raise ValueError("a bug of the application")
    if environ["PATH_INFO"] == "/busy":
        until_then = time.monotonic() + BUSY_SECONDS
        while time.monotonic() < until_then:
            pass
    content = b"x" * LARGE if environ["PATH_INFO"] == "/large" else b""
    read: Callable[[int], bytes] = environ["wsgi.input"].read
    if environ["REQUEST_METHOD"] == "POST":
        try:
            count = 0
            while part := read(4096):
                count += len(part)
            content = str(count).encode()
        except (OSError, ValueError):
            content = b"cut short"
    start_response("200 OK", [("Content-Length", str(len(content)))])
    return [content]


@pytest.fixture(name="serve")
def fixture_serve() -> Iterator[MakeServer]:
    """Starts servers with such limits."""
    started: list[Server] = []

    def start(connections: int = 10, seconds: float = 30.0, most: int = 1000) -> Server:
        limits = Limits(connections, seconds, most)
        started.append(Server(("127.0.0.1", 0), application, limits))
        started[-1].start()  # type: ignore[no-untyped-call]
        return started[-1]

    yield start
    for server in started:
        server.stop(timeout=0.1)  # type: ignore[no-untyped-call]


def connect(server: Server) -> socket.socket:
    """A connection to the server."""
    return socket.create_connection(("127.0.0.1", server.server_port), 20)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    received = b""
    try:
        while data := connection.recv(2**16):
            received += data
    except ConnectionResetError:
        pass
    return received


def ask(server: Server, request: bytes) -> bytes:
    """What comes after the request until the server ends the connection."""
    with connect(server) as connection:
        connection.sendall(request)
        return rest(connection)


def test_a_connection_too_many_ends_the_oldest(serve: MakeServer) -> None:
    server = serve(connections=3)
    held = [connect(server) for _ in range(4)]
    assert held[0].recv(1) == b""
    for connection in held[1:]:
        connection.sendall(GET)
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        connection.close()


def test_one_after_the_other_keeps_its_connection(serve: MakeServer) -> None:
    with connect(serve()) as connection:
        for _ in range(3):
            connection.sendall(GET)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_requests_before_the_answer_to_the_last_one_wait_for_others(serve: MakeServer) -> None:
    server = serve()
    with connect(server) as greedy:
        greedy.sendall(GET * 30)
        with connect(server) as connection:
            for _ in range(10):
                connection.sendall(GET)
                connection.recv(1000)
        assert greedy.recv(2**16).count(b"200 OK") < 10
        greedy.shutdown(socket.SHUT_WR)
        assert rest(greedy).count(b"200 OK") > 20


@pytest.mark.parametrize(
    "request_of",
    [b"GET /busy HTTP/1.1\r\n\r\n", b"POST /busy HTTP/1.1\r\nContent-Length: 1\r\n\r\na"],
)
def test_many_requests_at_once_leave_turns_to_others(serve: MakeServer, request_of: bytes) -> None:
    server = serve(connections=40)
    connections = [connect(server) for _ in range(30)]
    for connection in connections:
        connection.sendall(request_of[:-1])
    gevent.sleep(0.1)
    with hub_gaps() as gaps:
        for connection in connections:
            connection.sendall(request_of[-1:])
        for connection in connections:
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
            connection.close()
    assert max(gaps) < sum(gaps) / 2


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET",
        GET[:-2],
        GET[:-2] + b"X: " + b"a" * 100,
        b"POST / HTTP/1.1\r\nContent-Length: 9",
    ],
)
def test_a_request_that_does_not_come_to_its_end_is_given_up(
    serve: MakeServer, said: bytes
) -> None:
    server = serve(seconds=0.3)
    with connect(server) as connection:
        connection.sendall(said)
        rest(connection)
    until(lambda: not server.pool)


def test_an_idle_connection_is_given_up(serve: MakeServer) -> None:
    assert ask(serve(seconds=0.3), GET).startswith(b"HTTP/1.1 200 OK")


def test_a_head_that_its_peer_cuts_short_is_no_request(serve: MakeServer) -> None:
    with connect(serve()) as connection:
        connection.sendall(GET[:-2])
        connection.shutdown(socket.SHUT_WR)
        assert rest(connection).startswith(b"HTTP/1.1 400")


def test_one_that_does_not_read_is_given_up(
    serve: MakeServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server = serve(seconds=0.3)
    with connect(server) as connection:
        connection.sendall(GET.replace(b"/", b"/large", 1))
        until(lambda: server.pool)
        until(lambda: not server.pool)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("length", "told"), [(1000, b"1000"), (10**5, b"cut short"), (10**18, b"cut short")]
)
def test_a_body_has_its_limit(serve: MakeServer, length: int, told: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % length
    assert ask(serve(), head + b"a" * min(length, 10**5)).endswith(b"\r\n\r\n" + told)


NO_REQUESTS = [
    pytest.param(b"\x16\x03\x01\x02\x00\x01\r\n", id="TLS"),
    pytest.param(b"\0\xff\r\n", id="noise"),
    pytest.param(b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n", id="long line"),
    pytest.param(GET[:-2] + b"X: y\r\n" * 101 + b"\r\n", id="101 headers"),
    pytest.param(GET[:-2] + b"X: " + b"a" * 2 * MAX_HEAD_BYTES + b"\r\n\r\n", id="long header"),
    pytest.param(GET.replace(b"1.1", b"9" * 5000 + b".1"), id="long version"),
    pytest.param(GET.replace(b"1.1", b"1"), id="half a version"),
    pytest.param(GET.replace(b"1.1", b"3.0"), id="HTTP/3"),
    pytest.param(b"POST /\r\n", id="HTTP/0.9 POST"),
    pytest.param(GET[:-2] + b"Content-Length: -1\r\n\r\n", id="negative length"),
    pytest.param(GET[:-2] + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", id="long length"),
]


@pytest.mark.parametrize("said", NO_REQUESTS)
def test_what_is_no_request_is_refused_without_a_word_on_stderr(
    serve: MakeServer, capfd: pytest.CaptureFixture[str], said: bytes
) -> None:
    assert ask(serve(), said)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 414")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "chunks",
    [
        b"\r\n",
        b"1;" + b"a" * 9000,
        b"f" * 20,
        b"1\r\nab",
        b"0\r\n:\r\n",
        b"0\r\n" + b"X: y\r\n" * 999,
    ],
)
def test_chunks_that_are_none_end_the_connection(
    serve: MakeServer, capfd: pytest.CaptureFixture[str], chunks: bytes
) -> None:
    assert ask(serve(seconds=1.0), CHUNKED + chunks)[:12] in (b"HTTP/1.1 200", b"")
    assert capfd.readouterr().err == ""


def test_a_peer_that_goes_is_no_error(serve: MakeServer, capfd: pytest.CaptureFixture[str]) -> None:
    server = serve()
    for request in (GET.replace(b"/", b"/large", 1), b"GET", b"no request\r\n", CHUNKED + b"5\r\n"):
        connection = connect(server)
        connection.sendall(request)
        reset(connection)
        until(lambda: not server.pool)
    assert capfd.readouterr().err == ""


def test_a_bug_is_answered_and_told(serve: MakeServer, capfd: pytest.CaptureFixture[str]) -> None:
    assert b" 500 " in ask(serve(), GET.replace(b"/", b"/bug", 1))
    said = capfd.readouterr()
    assert "a bug of the application" in said.out + said.err


def test_what_an_application_says_of_its_errors_is_logged(serve: MakeServer) -> None:
    with capture_logs() as lines:
        ask(serve(), b"GET /error HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert lines == [{"event": "an error of the application", "log_level": "error"}]


def test_a_body_that_is_there_lets_others_have_their_turns_between_its_reads() -> None:
    turns, seen = [0], []

    def count() -> None:
        while True:
            turns[0] += 1
            gevent.sleep(0)

    def reading(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        before = turns[0]
        while environ["wsgi.input"].read(4096):
            pass
        seen.append(turns[0] - before)
        start_response("200 OK", [("Connection", "close")])
        return [b""]

    server = Server(("127.0.0.1", 0), reading, Limits(10, 30.0, 10**6))
    server.start()  # type: ignore[no-untyped-call]
    other = gevent.spawn(count)
    body = b"a" * 200_000
    head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert ask(server, head + body).startswith(b"HTTP/1.1 200")
    other.kill()
    server.stop(timeout=0.1)  # type: ignore[no-untyped-call]
    # The buffer of a connection has 8 KiB.
    assert seen[0] >= 20
