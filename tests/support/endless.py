"""Fast data without an end, written to a connection by another process.

A peer in the test's own process would write no faster than the agent reads.
"""

import ssl
import sys
from contextlib import suppress
from socket import socket
from subprocess import Popen

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TICKETS = "endless TLS session tickets"
CONNECT = "endless headers after a proxy's 200 to `CONNECT`"
# How each flood begins, and what then comes again and again.
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "an endless status line": (b"HTTP/1.1 200 ", b"x"),
    "endless `100 Continue`": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "endless `103 Early Hints`": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    "an endless header": (OK + b"X: ", b"x"),
    "endless headers": (OK, b"X: x\r\n"),
    "endless chunks of one byte": (CHUNKED, b"1\r\n \r\n"),
    "an endless chunk extension": (CHUNKED + b"1;", b"x"),
    "endless trailers": (CHUNKED + b"0\r\n", b"X: x\r\n"),
    # Empty blocks: there is always more to unpack, and never a byte of content.
    "an endless empty body in `deflate`": (
        OK + b"Content-Encoding: deflate\r\n\r\n",
        b"\x00\x00\x00\xff\xff",
    ),
    CONNECT: (OK, b"X: x\r\n"),
    # A record of 4,096 requests to begin a handshake, which a client skips while it is in one.
    "an endless TLS handshake": (b"", b"\x16\x03\x03\x40\x00" + bytes(0x4000)),
    TICKETS: (b"", b""),
}


def flood(connection: socket, kind: str, certificate: str = "", over: str = "") -> bytes:
    """Let a process of its own write to the connection, `over` TLS or not, until it is closed.

    TICKETS and TLS need a file with a key and a certificate. Returns that nothing is left to be
    sent.
    """
    command = [sys.executable, "-m", "tests.support.endless", kind, certificate, over]
    with Popen(command, stdin=connection.fileno()) as writer:
        try:
            writer.wait()
        finally:
            writer.kill()
    return b""


def _write(connection: socket, kind: str, certificate: str, over: str) -> None:
    connection.setblocking(True)
    if kind == TICKETS or over:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        if kind == TICKETS:
            context.num_tickets = 2**31 - 1
        connection = context.wrap_socket(connection, server_side=True)
    if kind == TICKETS:
        return
    head, again = FLOODS[kind]
    connection.sendall(head)
    piece = again * (256 * 1024 // len(again))
    while True:
        connection.sendall(piece)


if __name__ == "__main__":
    with suppress(OSError):
        _write(socket(fileno=0), *sys.argv[1:])
