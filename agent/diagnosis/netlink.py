"""Questions to the kernel by netlink(7) that any user may ask, for his network namespace."""

import socket
import struct
import sys
from collections.abc import Iterator

from gevent.monkey import get_original

# linux/netlink.h
NETLINK_ROUTE, NETLINK_SOCK_DIAG = 0, 4
_NLM_F_REQUEST, ONE, DUMP = 1, 0, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
# struct nlmsghdr: length, type, flags, sequence number, port id. struct nlattr: length and type.
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
# The bytes of an answer, and the seconds for one: the kernel answers while it is asked.
_ANSWER, _PATIENCE = 64 * 1024, 1.0

# Not gevent's: in a native thread that one would bring an event loop of its own.
NativeSocket = get_original("socket", "socket")


def ask(protocol: int, kind: int, question: bytes, flags: int) -> Iterator[bytes]:
    """What the kernel answers: all that there is (DUMP), or the one thing that was asked for.

    Nothing if that has gone. Raises OSError for a dump that the kernel does not have.
    """
    if sys.platform != "linux":
        raise OSError("netlink is Linux's")
    header = _HEADER.pack(_HEADER.size + len(question), kind, _NLM_F_REQUEST | flags, 0, 0)
    with NativeSocket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as kernel:
        kernel.settimeout(_PATIENCE)
        kernel.send(header + question)
        while True:
            answer, start = kernel.recv(_ANSWER), 0
            while start < len(answer):
                length, kind, *_ = _HEADER.unpack_from(answer, start)
                if kind == _NLMSG_ERROR and flags == DUMP:
                    raise OSError("the kernel has no such answer")
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    return
                yield answer[start + _HEADER.size : start + length]
                start += (length + 3) & ~3
            if flags == ONE:
                return


def attributes(content: bytes) -> dict[int, bytes]:
    """The attributes at the end of an answer, or inside of another one, by their type."""
    found, start = {}, 0
    while start + _ATTRIBUTE.size < len(content):
        length, kind = _ATTRIBUTE.unpack_from(content, start)
        found[kind] = content[start + _ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3 or len(content)
    return found
