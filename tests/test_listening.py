"""The proof of listening, on real sockets of this process and of others."""

import os
import socket
from collections.abc import Callable

import pytest
from gevent import subprocess

from agent.listening import ListenTable, holder_of
from tests.harness import free_port, iperf3_server, until

ME = os.getpid()


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_listening_socket_is_its_owners_alone(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        port = listener.getsockname()[1]
        assert not ListenTable().holds(ME, port), "it is bound, and does not listen yet"
        listener.listen()
        assert ListenTable().holds(ME, port)
        assert not ListenTable().holds(ME, port + 1)
        with iperf3_server(other := free_port()) as server:
            assert not ListenTable().holds(server.pid or 0, port)
            assert ListenTable().holds(server.pid or 0, other)
            assert not ListenTable().holds(ME, other)
    assert not ListenTable().holds(ME, port)


def test_a_connection_to_a_port_does_not_listen_on_it() -> None:
    with iperf3_server(port := free_port()):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            assert not ListenTable().holds(ME, port)
            assert not ListenTable().holds(ME, connection.getsockname()[1])


def test_a_udp_socket_does_not_listen() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        assert not ListenTable().holds(ME, udp.getsockname()[1])


def test_a_process_that_has_ended_holds_nothing() -> None:
    with subprocess.Popen(["/bin/true"]) as ended:
        ended.wait()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not ListenTable().holds(ended.pid or 0, listener.getsockname()[1])


def test_a_table_that_was_asked_before_sees_what_came_since() -> None:
    table = ListenTable()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        assert not table.holds(ME, listener.getsockname()[1])
        listener.listen()
        until(lambda: table.holds(ME, listener.getsockname()[1]), timeout=1)


def test_the_holder_of_a_port_is_named() -> None:
    with iperf3_server(port := free_port()) as server:
        assert holder_of(port) == f"iperf3 (pid {server.pid})"


@pytest.mark.parametrize("use", [socket.socket.close, lambda listener: None])
def test_a_port_on_which_nobody_listens_has_no_holder(use: Callable[[socket.socket], None]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        use(bound)
        assert holder_of(port) == ""
