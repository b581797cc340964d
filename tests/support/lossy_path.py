"""A path to a server of iperf3 that loses datagrams, for which no test needs to be root."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from socket import SOCK_DGRAM, create_connection, socket

import gevent
from gevent.server import StreamServer

from tests.support.harness import free_port
from tests.support.sockets import relay


@contextmanager
def lossy_path(server_port: int, keep_each: int) -> Iterator[int]:
    """The port that leads to the server. One datagram of `keep_each` arrives there, or none if 0.

    What iperf3 opens a UDP stream with (at most 4 bytes each way) always arrives.
    """
    address = ("127.0.0.1", free_port())
    inner: dict[tuple[str, int], socket] = {}

    def pass_on(connection: socket, _: object) -> None:
        with create_connection(("127.0.0.1", server_port)) as there:
            relay(connection, there)

    def answer(there: socket, client: tuple[str, int]) -> None:
        while True:
            outer.sendto(there.recv(65536), client)

    def lose() -> None:
        for count in itertools.count():
            data, client = outer.recvfrom(65536)
            if client not in inner:
                inner[client] = stack.enter_context(socket(type=SOCK_DGRAM))
                inner[client].connect(("127.0.0.1", server_port))
                stack.callback(gevent.spawn(answer, inner[client], client).kill)
            if len(data) <= 4 or (keep_each and count % keep_each == 0):
                inner[client].send(data)

    with socket(type=SOCK_DGRAM) as outer, ExitStack() as stack:
        outer.bind(address)
        connections = StreamServer(address, pass_on)
        connections.start()
        stack.callback(connections.stop)
        stack.callback(gevent.spawn(lose).kill)
        yield address[1]
