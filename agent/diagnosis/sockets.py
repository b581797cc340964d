"""What the kernel knows of sockets, by sock_diag(7): any user may ask, for his network namespace.

A dump takes some 0.3 ms, and to ask again for a socket that is known 0.02 ms.
"""

import socket
import struct
from collections.abc import Iterator
from functools import cached_property

from agent.diagnosis.netlink import DUMP, NETLINK_SOCK_DIAG, ONE, ask, attributes

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
FAMILIES = (socket.AF_INET, socket.AF_INET6)
# linux/tcp_states.h, and such states as bits. A UDP socket is "established" when it is connected.
_CONNECTED, _TIME_WAIT, _LISTENING = 1, 6, 10
ALL, LISTEN = 0xFFF & ~(1 << _TIME_WAIT), 1 << _LISTENING
# linux/sock_diag.h, linux/inet_diag.h
_SOCK_DIAG_BY_FAMILY = 20
_INFO, _CONGESTION, _SKMEMINFO, _ULP_INFO = 2, 4, 7, 19
_EXTENSIONS = 1 << _INFO - 1 | 1 << _CONGESTION - 1 | 1 << _SKMEMINFO - 1
# struct inet_diag_req_v2: family, protocol, extensions, states; then a struct inet_diag_sockid.
_REQUEST = struct.Struct("=BBBxI")
# struct inet_diag_msg: family and state, struct inet_diag_sockid (two ports, two addresses, the
# interface, the cookie), and at its end the inode; then attributes.
_MESSAGE = struct.Struct("=BBxx48s16xI")
_PORTS, _REST = struct.Struct("!HH"), struct.Struct("=IQ")
# Where struct tcp_info (linux/tcp.h) has a number: times in microseconds, sizes in bytes, and
# `unacked` in segments. It grows at its end with the kernel's releases, last with Linux 6.7.
_TCP_INFO = {
    "retransmits": (2, "B"),
    "snd_mss": (16, "I"),
    "unacked": (24, "I"),
    "pmtu": (60, "I"),
    "rtt": (68, "I"),
    "rttvar": (72, "I"),
    "snd_cwnd": (80, "I"),
    "rcv_rtt": (92, "I"),
    "total_retrans": (100, "I"),
    "max_pacing_rate": (112, "Q"),
    "bytes_acked": (120, "Q"),
    "bytes_received": (128, "Q"),
    "notsent_bytes": (144, "I"),
    "min_rtt": (148, "I"),
    "data_segs_in": (152, "I"),
    "data_segs_out": (156, "I"),
    "busy_time": (168, "Q"),
    "rwnd_limited": (176, "Q"),
    "sndbuf_limited": (184, "Q"),
    "dsack_dups": (216, "I"),
    "reord_seen": (220, "I"),
    "rcv_ooopack": (224, "I"),
    "snd_wnd": (228, "I"),
    "rcv_wnd": (232, "I"),
    "total_rto": (240, "H"),
}
# SK_MEMINFO (linux/sock_diag.h): what the receive buffer holds, its size, the same of sending, ...
_MEMORY = "rmem_alloc rcvbuf wmem_alloc sndbuf fwd_alloc wmem_queued optmem backlog drops".split()


def _layout() -> struct.Struct:
    """The fields of _TCP_INFO with what is between them, to unpack all at once."""
    kinds, end = "=", 0
    for start, kind in _TCP_INFO.values():
        kinds += f"{start - end}x{kind}"
        end = start + struct.calcsize(kind)
    return struct.Struct(kinds)


_ALL = _layout()
# What an older kernel does not have is filled up with these bits, which mean "not known" in others.
_UNKNOWN = b"\xff" * _ALL.size
_NOT_KNOWN = _ALL.unpack(_UNKNOWN)


class Socket:
    """A socket as the kernel describes it: `content` is a struct inet_diag_msg and attributes.

    One that `is_connected` has a peer, and neither of them has closed it. `device` is the index of
    the interface that it is bound to, 0 if to none.
    """

    def __init__(self, protocol: int, content: bytes) -> None:
        self.protocol, self._content = protocol, content
        self.family, state, self.id, self.inode = _MESSAGE.unpack_from(content)
        self.is_connected, self.is_listening = state == _CONNECTED, state == _LISTENING
        self.own_port, self.peer_port = _PORTS.unpack_from(self.id)
        self.device, self.cookie = _REST.unpack_from(self.id, 36)

    @cached_property
    def _attributes(self) -> dict[int, bytes]:
        return attributes(self._content[_MESSAGE.size :])

    @cached_property
    def numbers(self) -> dict[str, int]:
        """What is known of a struct tcp_info, as the kernel has it, and of its buffers in bytes."""
        memory = struct.iter_unpack("=I", self._attributes.get(_SKMEMINFO, b""))
        found = {name: value for name, (value,) in zip(_MEMORY, memory, strict=False)}
        if self.protocol == TCP and (info := self._attributes.get(_INFO)):
            values = _ALL.unpack_from(info + _UNKNOWN[len(info) :])
            known = zip(_TCP_INFO, values, _NOT_KNOWN, strict=True)
            found |= {name: value for name, value, unknown in known if value != unknown}
        return found

    @property
    def congestion(self) -> str:
        """The name of its congestion control; empty where it has none."""
        return self._attributes.get(_CONGESTION, b"").rstrip(b"\0").decode()

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

    def _address(self, start: int) -> str:
        raw = self.id[start : start + (4 if self.family == socket.AF_INET else 16)]
        return socket.inet_ntop(self.family, raw).removeprefix("::ffff:")

    def carried(self) -> tuple[int, int]:
        """The bytes that were acknowledged to a TCP socket, and that it received."""
        return self.numbers.get("bytes_acked", 0), self.numbers.get("bytes_received", 0)

    def expected_round_trip(self) -> float:
        """How long a TCP socket waits for an answer, in seconds, by RFC 6298; 0 if not known."""
        return (self.numbers.get("rtt", 0) + 4 * self.numbers.get("rttvar", 0)) / 1e6


def dump(protocol: int, family: int, states: int, own: int = 0, peer: int = 0) -> Iterator[Socket]:
    """The sockets of a protocol, a family and some states, at and to a port unless that is 0.

    Those that listen are found whatever `peer` is. Raises OSError without sock_diag.
    """
    return _ask(protocol, family, states, struct.pack("!HH44x", own, peer), DUMP)


def again(known: Socket) -> Iterator[Socket]:
    """The same socket as it is now; nothing if it has gone."""
    identity = known.id
    if known.protocol == UDP:
        # The kernel has these two the other way round, "for historical reasons".
        own, far, source, target, rest = struct.unpack("2s2s16s16s12s", identity)
        identity = far + own + target + source + rest
    return _ask(known.protocol, known.family, ALL, identity, ONE)


def _ask(protocol: int, family: int, states: int, identity: bytes, flags: int) -> Iterator[Socket]:
    question = _REQUEST.pack(family, protocol, _EXTENSIONS, states) + identity
    for answer in ask(NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, question, flags):
        yield Socket(protocol, answer)
