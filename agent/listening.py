"""Proof that a server of ours listens: a listening socket among the child's own descriptors.

Never by connecting, which takes a `-1` server's only slot and leaves a warning in every other
server's output. On Linux one reading of /proc/net/tcp and tcp6 serves all the servers that are
starting (psutil, which does the same for one, takes about 8 ms); elsewhere psutil does it. It is
imported where it is needed: without it an idle agent is a megabyte smaller.
"""

import os
import sys
import time
from typing import Any

# A reading of the kernel's tables serves for this many seconds; a server takes 3 to 11 ms.
READING_SERVES = 0.004
_LISTEN = "0A"


class ListenTable:
    """The listening TCP sockets of this host, as a shared reading of the kernel's tables."""

    def __init__(self) -> None:
        self._inodes: dict[int, set[str]] = {}
        self._read_at = 0.0

    def holds(self, pid: int, port: int) -> bool:
        """Whether the process, which is a child of ours, has a listening socket on `port`."""
        if sys.platform != "linux":
            return _psutil_holds(pid, port)
        return not self._listening_on(port).isdisjoint(_socket_inodes(pid))

    def _listening_on(self, port: int) -> set[str]:
        now = time.monotonic()
        if now - self._read_at > READING_SERVES:
            self._inodes = _read_tables()
            self._read_at = now
        return self._inodes.get(port, set())


def holder_of(port: int) -> str:
    """Who listens on a TCP port, in words, or an empty text where it cannot be known."""
    import psutil

    try:
        for connection in psutil.net_connections(kind="tcp"):
            if _listens(connection, port) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return ""


def _psutil_holds(pid: int, port: int) -> bool:
    import psutil

    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(_listens(connection, port) for connection in connections)


def _listens(connection: Any, port: int) -> bool:
    return bool(connection.status == "LISTEN" and connection.laddr.port == port)


def _read_tables() -> dict[int, set[str]]:
    """The inodes of the listening sockets by port, of both families."""
    found: dict[int, set[str]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                lines = file.readlines()[1:]
        except FileNotFoundError:  # tcp6, where IPv6 is off
            continue
        for line in lines:
            columns = line.split(maxsplit=10)
            if columns[3] == _LISTEN:
                port = int(columns[1].rpartition(":")[2], 16)
                found.setdefault(port, set()).add(columns[9])
    return found


def _socket_inodes(pid: int) -> set[str]:
    """The inodes of a process's sockets; none when it has ended or is another user's."""
    inodes = set()
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            target = os.readlink(entry.path)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        pass
    return inodes
