"""The proof that a process listens, on real sockets of this process and of others."""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from gevent import subprocess
from gevent.monkey import get_original

from agent.diagnosis import sockets
from agent.process.child import ChildProcess
from agent.process.ports import find_listener, is_listening, serves
from tests.support.harness import free_port, iperf3_server, until

pytestmark = pytest.mark.process

ME = os.getpid()
# Netlink has 32 protocol numbers; the last ones are unused.
NO_PROTOCOL = 31


@pytest.fixture(name="way", params=["sock_diag", "without sock_diag"])
def fixture_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with sock_diag, and one that was built without it."""
    if request.param != "sock_diag":
        monkeypatch.setattr(sockets, "NETLINK_SOCK_DIAG", NO_PROTOCOL)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_only_the_owner_of_a_listening_socket_is_listening(
    family: socket.AddressFamily, address: str
) -> None:
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        port = listener.getsockname()[1]
        assert not is_listening(ME, port), "it is bound, and does not listen yet"
        listener.listen()
        assert is_listening(ME, port)
        assert not is_listening(ME, port + 1)
        with iperf3_server(other := free_port()) as server:
            assert not is_listening(server.pid or 0, port)
            assert is_listening(server.pid or 0, other)
            assert not is_listening(ME, other)
    assert not is_listening(ME, port)


def as_nobody(work: Callable[[], int]) -> int:
    """The pid of a process of another user that does the work and ends with what that returns.

    A process that has changed its user hides its descriptors from that user, as one does that
    got capabilities from its file.
    """
    if pid := get_original("os", "fork")():
        return int(pid)
    code = 99
    try:
        signal.alarm(20)
        os.setresuid(65534, 65534, 65534)
        code = work()
    finally:
        os._exit(code)


@pytest.mark.usefixtures("way")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_that_it_cannot_look_is_not_that_nobody_listens() -> None:
    answers, wait = [True, False, None], get_original("os", "waitpid")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port := free_port()))
        listener.listen()
        other = as_nobody(lambda: int(get_original("time", "sleep")(20) or 0))
        for asked, expected in ((port, None), (port + 1, False)):
            looking = as_nobody(
                partial(lambda asked: answers.index(is_listening(other, asked)), asked)
            )
            code = os.waitstatus_to_exitcode(wait(looking, 0)[1])
            assert answers[code] is expected
        assert is_listening(other, port), "root sees them all"
    os.kill(other, signal.SIGKILL)
    wait(other, 0)


def test_a_wrapper_serves_where_its_iperf3_does(tmp_path: Path) -> None:
    wrapper = tmp_path / "wrapper"
    wrapper.write_text('#!/bin/sh\n(iperf3 "$@"); exit\n')
    wrapper.chmod(0o755)
    argv = [str(wrapper), "-s", "-p", str(port := free_port())]
    server = ChildProcess(argv, tmp_path / "out", tmp_path / "err")
    until(lambda: serves(server.pid, port))
    assert not is_listening(server.pid, port) and not serves(server.pid, port + 1)
    server.close()
    until(lambda: find_listener(port) == (0, "another process"))


def test_a_connection_to_a_port_does_not_listen_on_it() -> None:
    with iperf3_server(port := free_port()):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            assert not is_listening(ME, port)
            assert not is_listening(ME, connection.getsockname()[1])


def test_a_udp_socket_does_not_listen() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        assert not is_listening(ME, udp.getsockname()[1])


def test_each_of_many_listeners_on_one_port_is_found() -> None:
    with iperf3_server(port := free_port()), ExitStack() as stack:
        # More than fit into one answer of the kernel.
        for _ in range(1000):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(("127.0.0.1", port + 1))
            listener.listen()
        assert is_listening(ME, port + 1)
        assert not is_listening(ME, port)


def test_a_process_that_has_ended_is_not_listening() -> None:
    with subprocess.Popen(["/bin/true"]) as ended:
        ended.wait()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not is_listening(ended.pid or 0, listener.getsockname()[1])


def test_the_listener_of_a_port_is_named() -> None:
    with iperf3_server(port := free_port()) as server:
        assert find_listener(port) == (server.pid, f"iperf3 (pid {server.pid})")


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_the_listener_of_a_port_is_that_of_the_address(wildcard: str) -> None:
    with iperf3_server(port := free_port(), "-B", "127.0.0.2") as server:
        with socket.create_server(("127.0.0.1", port)):
            assert find_listener(port, "127.0.0.2") == (server.pid, f"iperf3 (pid {server.pid})")
            assert find_listener(port, "127.0.0.1")[0] == ME
            assert find_listener(port, "127.0.0.3") == (0, "another process")
    family = socket.AF_INET6 if ":" in wildcard else socket.AF_INET
    with socket.create_server((wildcard, port), family=family):
        assert find_listener(port, "127.0.0.3")[0] == ME


@pytest.mark.parametrize("use", [socket.socket.close, lambda listener: None])
def test_a_free_port_has_no_listener(use: Callable[[socket.socket], None]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        use(bound)
        assert find_listener(port) == (0, "another process")
