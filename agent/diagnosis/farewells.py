"""The last words of a test's TCP sockets: the kernel tells any user of each that it destroys."""

import ctypes
import socket
import struct
import time
from contextlib import suppress

import gevent

from agent.diagnosis.netlink import NETLINK_SOCK_DIAG, NativeSocket
from agent.diagnosis.sockets import TCP, Socket

# linux/sock_diag.h: the groups of TCP over IPv4 and IPv6, as bits. asm-generic/socket.h.
_GROUPS, _ATTACH_FILTER = 1 << 0 | 1 << 2, 26
# Room for the words of 128 streams.
_BUFFER, _MESSAGE = 1 << 20, 64 * 1024
# Seconds between two attempts to hear.
_PAUSE = 0.01
# Instructions of linux/filter.h: load two bytes, jump if equal, return.
_LOAD, _JUMP_IF, _RETURN = 0x28, 0x15, 0x06
# The bytes of struct nlmsghdr, and where a message has the own port and the peer's.
_HEADER, _OWN_PORT, _PORT = 16, 20, 22


class Farewells:
    """Hears what is said of the sockets that have a port in common with a control connection.

    Of a busy host's other connections the kernel says nothing then. Raises OSError.
    """

    def __init__(self, control: Socket) -> None:
        # The own port (of a server), or else the peer's (of a client).
        program = [
            (_LOAD, 0, 0, _OWN_PORT),
            (_JUMP_IF, 3, 0, control.own_port),
            (_LOAD, 0, 0, _PORT),
            (_JUMP_IF, 1, 0, control.peer_port),
            (_RETURN, 0, 0, 0),
            (_RETURN, 0, 0, _MESSAGE),
        ]
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
        self._kernel = NativeSocket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        self._kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        place = struct.pack("@HL", len(program), ctypes.addressof(code))
        self._kernel.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, place)
        self._kernel.setblocking(False)
        self._kernel.bind((0, _GROUPS))

    def hear(self, cookie: int, patience: float) -> dict[int, Socket]:
        """What was said, by cookie. For that of this one it waits so many seconds, in a greenlet.

        After that nothing more is heard.
        """
        heard, until = dict[int, Socket](), time.monotonic() + patience
        with self._kernel:
            while True:
                # It ends when there is no more, or was more than there is room for.
                with suppress(OSError):
                    while message := self._kernel.recv(_MESSAGE):
                        said = Socket(TCP, message[_HEADER:])
                        heard[said.cookie] = said
                if cookie in heard or time.monotonic() >= until:
                    return heard
                gevent.sleep(_PAUSE)
