"""Proof that a child listens on a port: one of its own descriptors is the listening socket.

A connection as a test would take a `-1` server's only slot, and leave a warning in every other
server's output. sock_diag(7) finds the listening sockets of one port in 0.02 ms. psutil, for
hosts without sock_diag, reads /proc/net/tcp, which takes 10 ms on a host of 24 GiB. It is
imported only there, as an idle agent is a megabyte smaller without it.
"""

from contextlib import suppress
from typing import Any

from agent.diagnosis.sockets import FAMILIES, LISTEN, TCP, dump, socket_inodes


def is_listening(pid: int, port: int) -> bool:
    """Whether a child of the agent has a TCP socket that listens on `port`."""
    try:
        found = [each for family in FAMILIES for each in dump(TCP, family, LISTEN, port)]
    except OSError:
        return _psutil_finds(pid, port)
    return not {each.inode for each in found}.isdisjoint(socket_inodes(pid))


def find_listener(port: int) -> str:
    """Name and pid of the process that listens on a TCP port; empty when it cannot be known.

    This looks at every descriptor of the host: 0.4 s for 48,000 of them.
    """
    import psutil

    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if _listens(connection, port) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""


def _psutil_finds(pid: int, port: int) -> bool:
    import psutil

    with suppress(psutil.Error, OSError):
        connections = psutil.Process(pid).net_connections(kind="tcp")
        return any(_listens(connection, port) for connection in connections)
    return False


def _listens(connection: Any, port: int) -> bool:
    return bool(connection.status == "LISTEN" and connection.laddr.port == port)
