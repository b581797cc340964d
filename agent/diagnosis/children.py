"""The sockets of a child, whichever of its processes they belong to."""

from agent.diagnosis.family import descriptors, family, socket_inodes
from agent.diagnosis.sockets import FAMILIES, TCP, UDP, Socket, again, dump

# More sockets than this are asked for by a dump.
_ONE_BY_ONE = 64


class ChildSockets:
    """The connected sockets of a child: found by a dump, then asked for one by one.

    `pid` is whose they are: the child's, or that of an iperf3 which a wrapper has started.
    """

    def __init__(self, child: int) -> None:
        self._child = self.pid = child
        self._descriptors, self._inodes = list[str](), list[int]()
        self._known: list[Socket] = []

    def read(self) -> list[Socket]:
        """What they are now, in the order of their descriptors; raises OSError."""
        known: list[Socket] = []
        for self.pid in family(self._child):
            self._descriptors = descriptors(self.pid)
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
        return descriptors(self.pid) != self._descriptors

    def _find(self, inodes: list[int]) -> list[Socket]:
        if not inodes:
            return []
        # One that was not found may be about to be connected, and MPTCP may add a path.
        is_known = inodes == self._inodes and len(self._known) == len(inodes) <= _ONE_BY_ONE
        if is_known and not any(each.is_subflow for each in self._known):
            return [new for old in self._known for new in again(old)]
        self._inodes = inodes
        dumps = [dump(protocol, kind) for protocol in (TCP, UDP) for kind in FAMILIES]
        places = {inode: place for place, inode in enumerate(inodes)}
        found = [each for sockets in dumps for each in sockets if each.inode in places]
        return sorted(found, key=lambda each: (places[each.inode], each.cookie))
