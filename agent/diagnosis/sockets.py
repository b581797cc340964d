"""What the kernel knows of sockets, by sock_diag(7): any user may ask, for his network namespace.

A dump takes some 0.3 ms, and to ask again for a socket that is known 0.02 ms.
"""

import socket
import struct
import sys
from collections.abc import Iterator

from gevent.monkey import get_original

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
FAMILIES = (socket.AF_INET, socket.AF_INET6)
# Bits of linux/tcp_states.h. A UDP socket is "established" when it is connected.
_ESTABLISHED, LISTEN = 1 << 1, 1 << 10
_ALIVE = 0xFFF & ~(1 << 6)
# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_NLM_F_REQUEST, _NLM_F_DUMP = 1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_INFO, _SKMEMINFO, _ULP_INFO = 2, 7, 19
# struct nlmsghdr: length, type, flags, sequence number, port id.
_HEADER = struct.Struct("=IHHII")
# struct inet_diag_req_v2: family, protocol, extensions, states; then a struct inet_diag_sockid.
_REQUEST = struct.Struct("=BBBxI")
# struct inet_diag_msg: family and state, struct inet_diag_sockid (two ports, two addresses, the
# interface, the cookie), and at its end the inode; then attributes, each with its length and type.
_MESSAGE, _ATTRIBUTE = struct.Struct("=BBxx48s16xI"), struct.Struct("=HH")
# The bytes of an answer, and the seconds for one: the kernel answers while it is asked.
_ANSWER, _PATIENCE = 64 * 1024, 1.0
# Where struct tcp_info (linux/tcp.h) has a number. It grows at its end with the kernel's releases.
_TCP_INFO = {
    "snd_mss": (16, "=I"),
    "pmtu": (60, "=I"),
    "rtt": (68, "=I"),
    "rttvar": (72, "=I"),
    "snd_cwnd": (80, "=I"),
    "bytes_acked": (120, "=Q"),
    "bytes_received": (128, "=Q"),
    "min_rtt": (148, "=I"),
    "snd_wnd": (228, "=I"),
    "rcv_wnd": (232, "=I"),
}
_UNKNOWN = 0xFFFFFFFF
# The place of the drops in SK_MEMINFO (linux/sock_diag.h).
_DROPS = 32

# Not gevent's: in a native thread that one would bring an event loop of its own.
_Socket = get_original("socket", "socket")


class Socket:
    """A socket as the kernel describes it: `content` is a struct inet_diag_msg and attributes."""

    def __init__(self, protocol: int, content: bytes) -> None:
        self.protocol = protocol
        self.family, self._state, self.id, self.inode = _MESSAGE.unpack_from(content)
        self.device, self.cookie = struct.unpack_from("=IQ", self.id, 36)
        self._attributes: dict[int, bytes] = {}
        rest = content[_MESSAGE.size :]
        while len(rest) > _ATTRIBUTE.size:
            length, kind = _ATTRIBUTE.unpack_from(rest)
            self._attributes[kind] = rest[_ATTRIBUTE.size : length]
            rest = rest[(length + 3) & ~3 or len(rest) :]

    @property
    def is_listening(self) -> bool:
        """Whether it waits for peers."""
        return bool(1 << self._state == LISTEN)

    @property
    def is_connected(self) -> bool:
        """Whether it has a peer, and neither of them has closed it."""
        return bool(1 << self._state == _ESTABLISHED)

    @property
    def is_subflow(self) -> bool:
        """Whether it is one path of an MPTCP socket: all paths have the inode of that."""
        return self.is_connected and _ULP_INFO in self._attributes

    @property
    def local_address(self) -> str:
        """Its own address as text; IPv4 also where an IPv6 socket carries it."""
        return self._address(4)

    @property
    def peer(self) -> str:
        """The address of the other side, in the same way."""
        return self._address(20)

    @property
    def peer_port(self) -> int:
        """The port of the other side."""
        return int.from_bytes(self.id[2:4], "big")

    def _address(self, start: int) -> str:
        raw = self.id[start : start + (4 if self.family == socket.AF_INET else 16)]
        return socket.inet_ntop(self.family, raw).removeprefix("::ffff:")

    @property
    def drops(self) -> int | None:
        """Datagrams that found no room in its receive buffer; None where nobody counts."""
        memory = self._attributes.get(_SKMEMINFO, b"")
        return struct.unpack_from("=I", memory, _DROPS)[0] if len(memory) > _DROPS else None

    def tcp_info(self, field: str) -> int | None:
        """A number of struct tcp_info, as the kernel has it; None where it is not known."""
        (start, kind), info = _TCP_INFO[field], self._attributes.get(_INFO, b"")
        if self.protocol != TCP or len(info) < start + struct.calcsize(kind):
            return None
        (value,) = struct.unpack_from(kind, info, start)
        return None if value == _UNKNOWN else int(value)

    def carried(self) -> tuple[int, int]:
        """The bytes that were acknowledged to a TCP socket, and that it received."""
        return self.tcp_info("bytes_acked") or 0, self.tcp_info("bytes_received") or 0

    def expected_round_trip(self) -> float:
        """How long a TCP socket waits for an answer, in seconds, by RFC 6298; 0 if not known."""
        return ((self.tcp_info("rtt") or 0) + 4 * (self.tcp_info("rttvar") or 0)) / 1e6


def dump(protocol: int, family: int, states: int = _ALIVE, port: int = 0) -> Iterator[Socket]:
    """The sockets of a protocol, a family and some states, and of an own port unless that is 0.

    Raises OSError without sock_diag.
    """
    return _ask(protocol, family, states, struct.pack("!H46x", port), _NLM_F_DUMP)


def again(known: Socket) -> Iterator[Socket]:
    """The same socket as it is now; nothing if it has gone."""
    identity = known.id
    if known.protocol == UDP:
        # The kernel has these two the other way round, "for historical reasons".
        own, far, source, target, rest = struct.unpack("2s2s16s16s12s", identity)
        identity = far + own + target + source + rest
    return _ask(known.protocol, known.family, _ALIVE, identity)


def _ask(
    protocol: int, family: int, states: int, identity: bytes, flags: int = 0
) -> Iterator[Socket]:
    if sys.platform != "linux":
        raise OSError("sock_diag is Linux's")
    extensions = 1 << _INFO - 1 | 1 << _SKMEMINFO - 1
    request = _REQUEST.pack(family, protocol, extensions, states) + identity
    length = _HEADER.size + len(request)
    header = _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | flags, 0, 0)
    with _Socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_PATIENCE)
        kernel.send(header + request)
        while True:
            answer = kernel.recv(_ANSWER)
            while answer:
                length, kind, *_ = _HEADER.unpack_from(answer)
                if kind == _NLMSG_ERROR and flags:
                    raise OSError("the kernel has no sock_diag for that")
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    return
                yield Socket(protocol, answer[_HEADER.size : length])
                answer = answer[(length + 3) & ~3 :]
            if not flags:
                return
