"""Hosts as network namespaces: the agent's, and by a cable each the Manager's and a peer's."""

import ctypes
import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gevent import subprocess

# Addresses that the tests' own host does not see: they exist inside the namespaces alone.
MANAGER, PEER = "10.99.1.1", "10.99.2.1"
_AGENT = {"manager": "10.99.1.2", "peer": "10.99.2.2"}
_FAR = {"manager": MANAGER, "peer": PEER}
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_NUMBERS = itertools.count()


class Network:
    """The hosts `agent`, `manager` and `peer`; each cable is named after its far end."""

    def __init__(self, name: str) -> None:
        self._name = name

    @contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """Make this thread the host's: its new sockets and children are, and remain so."""
        with open("/proc/thread-self/ns/net", "rb") as home:
            with open(f"/run/netns/{self._name}-{host}", "rb") as there:
                _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def cut(self, cable: str, end: str) -> None:
        """Pull a cable out at its `near` end, so that the agent knows, or at its `far` end."""
        self._set(cable, end, "down")

    def mend(self, cable: str, end: str) -> None:
        """Put it back."""
        self._set(cable, end, "up")

    def _set(self, cable: str, end: str, state: str) -> None:
        host, device = ("agent", cable) if end == "near" else (cable, "agent")
        run_ip("-n", f"{self._name}-{host}", "link", "set", device, state)


@contextmanager
def network() -> Iterator[Network]:
    """A network, taken down with the block. Needs root and iproute2."""
    name = f"faults-{os.getpid()}-{next(_NUMBERS)}"
    with ExitStack() as stack:
        for host in ("agent", "manager", "peer"):
            run_ip("netns", "add", f"{name}-{host}")
            # What still runs inside keeps a namespace, and with it its end of a cable.
            stack.callback(run_ip, "netns", "del", f"{name}-{host}")
            run_ip("-n", f"{name}-{host}", "link", "set", "lo", "up")
        for far, address in _AGENT.items():
            ends = ["netns", f"{name}-agent", "type", "veth", "peer", "name", "agent"]
            run_ip("link", "add", far, *ends, "netns", f"{name}-{far}")
            run_ip("-n", f"{name}-agent", "address", "add", f"{address}/24", "dev", far)
            run_ip("-n", f"{name}-{far}", "address", "add", f"{_FAR[far]}/24", "dev", "agent")
            for end in ("near", "far"):
                Network(name).mend(far, end)
        yield Network(name)


def run_ip(*words: str) -> None:
    """Run `ip`; raises CalledProcessError when it fails."""
    subprocess.run(["ip", *words], check=True)


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
