"""Proof that a child listens on a port: one of its own descriptors is the listening socket.

A connection as a test would take a `-1` server's only slot, and leave a warning in every other
server's output. psutil, for hosts without sock_diag(7), reads /proc/net/tcp. It is imported only
there, as an idle agent is a megabyte smaller without it.
"""

from contextlib import suppress
from typing import Any

from agent.diagnosis.children import family, socket_inodes
from agent.diagnosis.sockets import FAMILIES, LISTEN, TCP, dump

_WILDCARDS = ("0.0.0.0", "::")


def serves(pid: int, port: int) -> bool | None:
    """The same for a child and its family."""
    found = {is_listening(each, port) for each in family(pid)}
    return True in found or (None if None in found else False)


def is_listening(pid: int, port: int) -> bool | None:
    """Whether a process has a TCP socket that listens on `port`.

    None if somebody has one and nobody may see whose it is: only root may look at the sockets of
    an iperf3 with file capabilities.
    """
    try:
        found = {each.inode for kind in FAMILIES for each in dump(TCP, kind, LISTEN, port)}
    except OSError:
        return _psutil_finds(pid, port)
    try:
        return not found.isdisjoint(socket_inodes(pid))
    except PermissionError:
        return None if found else False


def find_listener(port: int, address: str | None = None) -> tuple[int, str]:
    """The pid of who listens on a TCP port of an address, or of any, and who that is in words.

    The pid is 0 if it cannot be known. This looks at every descriptor of the host: 0.4 s for
    48,000 of them.
    """
    import psutil

    with suppress(psutil.Error, OSError):
        connections = psutil.net_connections(kind="tcp")
        for wanted in (address, *_WILDCARDS):
            for found in connections:
                own = found.laddr.ip.removeprefix("::ffff:") if found.laddr else ""
                if _listens(found, port) and found.pid and wanted in (None, own):
                    return found.pid, f"{psutil.Process(found.pid).name()} (pid {found.pid})"
    return 0, "another process"


def _psutil_finds(pid: int, port: int) -> bool | None:
    import psutil

    with suppress(psutil.Error, OSError):
        try:
            return any(_listens(each, port) for each in psutil.Process(pid).net_connections("tcp"))
        except psutil.AccessDenied:
            known = any(_listens(each, port) for each in psutil.net_connections("tcp"))
            return None if known else False
    return False


def _listens(connection: Any, port: int) -> bool:
    return bool(connection.status == "LISTEN" and connection.laddr.port == port)
