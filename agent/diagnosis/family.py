"""The processes of a child, and the inodes of their sockets, as /proc has them."""

import os
from collections.abc import Iterator
from contextlib import suppress


def family(pid: int) -> Iterator[int]:
    """A process and all that it has started, as a wrapper starts iperf3."""
    yield pid
    with suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        for child in children.read().split():
            yield from family(int(child))


def descriptors(pid: int) -> list[str]:
    """The names of a process's descriptors; none if it must not be looked at. That is quick."""
    with suppress(OSError):
        return os.listdir(f"/proc/{pid}/fd")
    return []


def socket_inodes(pid: int) -> list[int]:
    """The inodes of a process's sockets in the order of their descriptors.

    Empty when it has ended or must not be looked at.
    """
    found = {}
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            target = os.readlink(entry.path)
            if target.startswith("socket:["):
                found[int(entry.name)] = int(target[8:-1])
    return [found[descriptor] for descriptor in sorted(found)]
