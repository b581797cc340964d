"""The processes of a child and their sockets, as /proc and sock_diag have them."""

import os
from collections.abc import Iterator
from contextlib import suppress

from agent.diagnosis.sockets import ALL, FAMILIES, LISTEN, TCP, UDP, Socket, again, dump

# More sockets than this are asked for by a dump.
_ONE_BY_ONE = 64


def family(pid: int) -> Iterator[int]:
    """A process and all that it has started, as a wrapper starts iperf3."""
    yield pid
    with suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        for child in children.read().split():
            yield from family(int(child))


def socket_inodes(pid: int) -> list[int]:
    """The inodes of a process's sockets in the order of their descriptors; none if it has ended.

    Raises PermissionError if nobody but root may look at them, or not even see it in /proc.
    """
    found = {}
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            target = os.readlink(entry.path)
            if target.startswith("socket:["):
                found[int(entry.name)] = int(target[8:-1])
    except (FileNotFoundError, ProcessLookupError):
        with suppress(ProcessLookupError):
            # Where it is hidden (hidepid), or there is no /proc, it can be sent a signal still.
            os.kill(pid, 0)
            if not os.path.exists(f"/proc/{pid}"):
                raise PermissionError(f"process {pid} is hidden") from None
    return [found[descriptor] for descriptor in sorted(found)]


class ChildSockets:
    """The connected sockets of a child: found by a dump, then asked for one by one.

    They are those at the `own` port of its tests or to the `peer` port, all if neither is known.
    `pid` is whose they are: the child's, or that of an iperf3 which a wrapper has started.
    """

    def __init__(self, child: int, own: int = 0, peer: int = 0) -> None:
        self._child = self.pid = child
        self._ports = own, peer
        self._descriptors, self._inodes = list[str](), list[int]()
        self._known: list[Socket] = []

    def read(self) -> list[Socket]:
        """What they are now, in the order of their descriptors; raises OSError."""
        known: list[Socket] = []
        for self.pid in family(self._child):
            with suppress(PermissionError):
                self._descriptors = _descriptors(self.pid)
                if known := self._find(socket_inodes(self.pid)):
                    break
        self._known = known
        return [each for each in known if each.is_connected]

    def only_listen(self) -> bool:
        """Whether the last look has found nothing but listening sockets."""
        return bool(self._known) and all(each.is_listening for each in self._known)

    def have_changed(self) -> bool:
        """Whether there is one more or less since then. An accepted connection is one more.

        This takes 0.01 ms.
        """
        return _descriptors(self.pid) != self._descriptors

    def _find(self, inodes: list[int]) -> list[Socket]:
        if not inodes:
            return []
        # One that was not found may be about to be connected, and MPTCP may add a path.
        is_known = inodes == self._inodes and len(self._known) == len(inodes) <= _ONE_BY_ONE
        if is_known and not any(each.is_subflow for each in self._known):
            return [new for old in self._known for new in again(old)]
        self._inodes = inodes
        places, found = {inode: place for place, inode in enumerate(inodes)}, list[Socket]()
        # The kernel finds those that listen without a walk through the connections of the host.
        listening = [] if self._ports[1] else [(TCP, LISTEN)]
        for protocol, states in (*listening, (TCP, ALL & ~LISTEN), (UDP, ALL)):
            dumps = [dump(protocol, kind, states, *self._ports) for kind in FAMILIES]
            found += [each for sockets in dumps for each in sockets if each.inode in places]
            if places.keys() == {each.inode for each in found}:
                break
        return sorted(found, key=lambda each: (places[each.inode], each.cookie))


def _descriptors(pid: int) -> list[str]:
    with suppress(OSError):
        return os.listdir(f"/proc/{pid}/fd")
    return []
