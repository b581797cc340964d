"""What the kernel says of real sockets, compared with what the sockets themselves know."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.diagnosis import children, sockets
from agent.diagnosis.children import ChildSockets
from agent.diagnosis.sockets import TCP, UDP, Socket, dump
from tests.support.harness import free_port, iperf3_server

ME = os.getpid()
HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@contextmanager
def pair(family: socket.AddressFamily, kind: socket.SocketKind) -> Iterator[list[socket.socket]]:
    """Two sockets that are connected with each other over loopback."""
    with ExitStack() as stack:
        first = stack.enter_context(socket.socket(family, kind))
        first.bind((HOSTS[family], 0))
        second = stack.enter_context(socket.socket(family, kind))
        if kind == socket.SOCK_STREAM:
            first.listen()
            second.connect(first.getsockname())
            yield [stack.enter_context(first.accept()[0]), second]
        else:
            second.bind((HOSTS[family], 0))
            first.connect(second.getsockname())
            second.connect(first.getsockname())
            yield [first, second]


def mine(known: ChildSockets, *wanted: socket.socket) -> list[Socket]:
    """What the kernel knows of these sockets of this process."""
    inodes = [os.stat(each.fileno()).st_ino for each in wanted]
    found = {each.inode: each for each in known.read()}
    return [found[inode] for inode in inodes]


@pytest.mark.parametrize("family", HOSTS)
@pytest.mark.parametrize(
    ("kind", "protocol"), [(socket.SOCK_STREAM, TCP), (socket.SOCK_DGRAM, UDP)]
)
def test_a_connected_socket_is_found_by_a_dump_and_then_by_its_cookie(
    family: socket.AddressFamily,
    kind: socket.SocketKind,
    protocol: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = ChildSockets(ME)
    with pair(family, kind) as (one, other):
        first, _ = mine(known, one, other)
        assert (first.protocol, first.family) == (protocol, family)
        assert first.local_address == HOSTS[family]
        monkeypatch.setattr(children, "dump", lambda *_: pytest.fail("it dumped once more"))
        again, _ = mine(known, one, other)
        assert (again.cookie, again.inode) == (first.cookie, first.inode)


def test_the_bytes_and_the_drops_of_a_socket_are_those_that_happened() -> None:
    known = ChildSockets(ME)
    with pair(socket.AF_INET, socket.SOCK_STREAM) as (one, other):
        one.sendall(b"x" * 5000)
        assert len(other.recv(5000, socket.MSG_WAITALL)) == 5000
        sender, receiver = mine(known, one, other)
        assert (sender.carried(), receiver.carried()[1]) == ((5000, 0), 5000)
        # The kernel's own numbers, by another way.
        rtt, variance = struct.unpack_from("=II", one.getsockopt(TCP, socket.TCP_INFO, 104), 68)
        assert sender.numbers["rtt"] == rtt
        assert sender.expected_round_trip() == pytest.approx((rtt + 4 * variance) / 1e6)
        assert sender.numbers["snd_mss"] == one.getsockopt(TCP, socket.TCP_MAXSEG)
    with pair(socket.AF_INET, socket.SOCK_DGRAM) as (one, other):
        assert "rtt" not in mine(known, one)[0].numbers
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        for _ in range(100):
            one.send(b"x" * 1000)
        (dropped,) = mine(known, other)
        assert 90 <= dropped.numbers["drops"] <= 100


def test_an_ipv6_socket_that_serves_ipv4_has_the_address_of_ipv4() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
            accepted, _ = listener.accept()
            with accepted:
                (found,) = mine(ChildSockets(ME), accepted)
    assert (found.family, found.local_address) == (socket.AF_INET6, "127.0.0.1")


def test_a_socket_bound_to_a_device_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        bound.connect(listener.getsockname())
        (found,) = mine(ChildSockets(ME), bound)
    assert socket.if_indextoname(found.device) == "lo"


def test_many_sockets_come_in_the_order_of_their_descriptors() -> None:
    with ExitStack() as stack:
        pairs = [stack.enter_context(pair(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(150)]
        mixed = sorted((one for each in pairs for one in each), key=socket.socket.fileno)
        inodes = [os.stat(each.fileno()).st_ino for each in mixed]
        known = ChildSockets(ME)
        for _ in range(2):
            assert [each.inode for each in known.read() if each.inode in inodes] == inodes


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("end", ["own", "peer"])
def test_the_kernel_answers_with_those_of_a_test_however_many_others_there_are(
    kind: socket.SocketKind, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = list[int]()

    def noted(protocol: int, content: bytes) -> Socket:
        answered.append((found := Socket(protocol, content)).inode)
        return found

    monkeypatch.setattr(sockets, "Socket", noted)
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(pair(socket.AF_INET, kind))
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        one, other = stack.enter_context(pair(socket.AF_INET, kind))
        port = one.getsockname()[1]
        wanted = one if end == "own" else other
        mine(ChildSockets(ME, **{end: port}), wanted)
        inode = os.stat(wanted.fileno()).st_ino
        assert inode in answered
        # The listener of the pair has its own port, too.
        assert len(answered) <= 2


@pytest.mark.process
def test_an_idle_server_is_found_without_a_walk_through_all_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[int]()

    def noted(protocol: int, family: int, states: int, own: int, peer: int) -> Iterator[Socket]:
        asked.append(states)
        return dump(protocol, family, states, own, peer)

    with iperf3_server(port := free_port()) as server:
        monkeypatch.setattr(children, "dump", noted)
        known = ChildSockets(server.pid or 0, port)
        assert known.read() == []
        assert known.only_listen()
    assert set(asked) == {sockets.LISTEN}


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_is_found_once_it_is_connected(kind: socket.SocketKind) -> None:
    """As a server's for UDP, which waits for a client first."""
    known = ChildSockets(ME)
    with pair(socket.AF_INET, kind), socket.socket(type=kind) as one, socket.socket() as other:
        inode = os.stat(one.fileno()).st_ino
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        other.listen()
        for _ in range(3):
            assert inode not in [each.inode for each in known.read()]
        one.connect(other.getsockname())
        found = [[each.inode for each in known.read()] for _ in range(3)]
        assert all(inode in inodes for inodes in found[1:])


def test_a_socket_that_is_closed_is_gone_from_the_next_answer() -> None:
    known = ChildSockets(ME)
    with pair(socket.AF_INET, socket.SOCK_STREAM) as (one, other):
        (inode,) = (each.inode for each in mine(known, one))
        one.close()
        assert inode not in [each.inode for each in known.read()]
        assert other.recv(1) == b""


def test_a_kernel_without_sock_diag_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "NETLINK_SOCK_DIAG", 31)
    with pytest.raises(OSError):
        list(dump(TCP, socket.AF_INET, sockets.ALL))
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(OSError):
        list(dump(TCP, socket.AF_INET, sockets.ALL))


def test_an_answer_of_an_older_kernel_lacks_what_it_did_not_know_yet() -> None:
    """A struct tcp_info of Linux 4.9 ends before the windows."""
    message = bytes(72) + (4 + 160).to_bytes(2, "little") + b"\x02\0" + b"\x01" * 160
    found = Socket(TCP, message)
    assert found.numbers["rtt"] == 0x01010101
    assert not {"snd_wnd", "drops"} & found.numbers.keys()


# Run with a network of its own, as it gives that a second path in the middle of a connection.
TWO_PATHS = """
import os, socket, subprocess
from agent.diagnosis.children import ChildSockets
from tests.support.harness import until
listener, client = (socket.socket(type=socket.SOCK_STREAM, proto=262) for _ in range(2))
listener.bind(("10.1.1.1", 0))
listener.listen()
client.connect(listener.getsockname())
server, _ = listener.accept()
server.sendall(b"x")
client.sendall(client.recv(1))
known = ChildSockets(os.getpid())
inodes = [os.stat(each.fileno()).st_ino for each in (client, server)]
assert [each.inode for each in known.read()] == inodes
cookies = [each.cookie for each in known.read()]
subprocess.run(["ip", "mptcp", "endpoint", "add", "10.1.1.2", "dev", "lo", "subflow"], check=True)
until(lambda: [each.inode for each in known.read()] == [each for each in inodes for _ in "12"])
assert [each.cookie for each in known.read()][::2] == cookies
"""
NETWORK = """
ip link set lo up
for address in 10.1.1.1 10.1.1.2; do ip address add $address/24 dev lo; done
ip mptcp limits set subflows 2 add_addr_accepted 2
exec "$@"
"""


@pytest.mark.process
@pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/proc/sys/net/mptcp"), reason="needs root and MPTCP"
)
def test_all_paths_of_an_mptcp_socket_are_found_the_first_one_first() -> None:
    argv = ["unshare", "--net", "sh", "-ec", NETWORK, "sh", sys.executable, "-c", TWO_PATHS]
    subprocess.run(argv, check=True, timeout=30)
