"""The hosts of the lab: namespaces, the paths between them, and how a path is made worse.

`client` and `server` are joined by cables to a `router`, by a long link of its own that delivers
each packet late, and each by a cable to the `manager`. Needs root, iproute2, nftables, ethtool and
/dev/net/tun.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.support.distance import DEVICE, link_ends
from tests.support.network import Network, run_ip

MANAGER = "10.97.0.1"
ENDS = ("client", "server")
OTHER = dict(zip(ENDS, reversed(ENDS), strict=True))
# The addresses of the ends: by the router, by the long link, and towards the Manager.
NEAR = {"client": "10.97.1.2", "server": "10.97.2.2"}
FAR = {"client": "10.97.9.1", "server": "10.97.9.2"}
_MANAGED = {"client": "10.97.0.2", "server": "10.97.0.3"}
_GATEWAY = {"client": "10.97.1.1", "server": "10.97.2.1"}
# An end's network device on the cable to the router, which calls its own after the end.
NEAR_DEVICE, FAR_DEVICE = "path0", DEVICE


class Hosts(Network):
    """The namespaces of the lab. `link` has the descriptors of the long link's two ends."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
        self.link: list[int] = []

    def run(self, host: str, *words: str) -> None:
        """Run a command on a host; raises CalledProcessError when it fails."""
        run_ip("netns", "exec", f"{self.name}-{host}", *words)

    def read_setting(self, host: str, name: str) -> str:
        """A sysctl of a host's network."""
        with self.inside(host), open(_path(name), encoding="ascii") as file:
            return file.read().strip()

    @contextmanager
    def setting(self, host: str, name: str, value: str) -> Iterator[None]:
        """A host's sysctl set to that value until the block's end."""
        before = self.read_setting(host, name)
        self._write(host, name, value)
        try:
            yield
        finally:
            self._write(host, name, before)

    @contextmanager
    def queue(self, host: str, device: str, *lines: str) -> Iterator[None]:
        """What `tc` makes of these lines at a device's way out, until the block's end.

        A `DEV` in them is the device.
        """
        try:
            for line in lines:
                self.run(host, "tc", *line.replace("DEV", f"dev {device}").split())
            yield
        finally:
            self.run(host, "tc", "qdisc", "del", "dev", device, "root")

    @contextmanager
    def filter(self, host: str, hook: str, *rules: str) -> Iterator[None]:
        """Rules of nftables where packets pass a host, until the block's end."""
        chain = f"type filter hook {hook} priority 0"
        lines = [f"table inet lab {{\nchain lab {{\n{chain}", *rules, "}\n}"]
        self.run(host, "nft", "\n".join(lines))
        try:
            yield
        finally:
            self.run(host, "nft", "delete table inet lab")

    @contextmanager
    def single_packets(self) -> Iterator[None]:
        """No packet on the cables is larger than their MTU, as on a wire, until the block's end."""
        places = [(end, NEAR_DEVICE) for end in ENDS] + [("router", end) for end in ENDS]
        try:
            for host, device in places:
                self._offload(host, device, "off")
            yield
        finally:
            for host, device in places:
                self._offload(host, device, "on")

    @contextmanager
    def mtu(self, host: str, device: str, size: int) -> Iterator[None]:
        """A device that carries packets up to that size, until the block's end."""
        run_ip("-n", f"{self.name}-{host}", "link", "set", device, "mtu", str(size))
        try:
            yield
        finally:
            run_ip("-n", f"{self.name}-{host}", "link", "set", device, "mtu", "1500")

    def _offload(self, host: str, device: str, state: str) -> None:
        self.run(host, "ethtool", "-K", device, "tso", state, "gso", state, "gro", state)

    def _write(self, host: str, name: str, value: str) -> None:
        with self.inside(host), open(_path(name), "w", encoding="ascii") as file:
            file.write(value)


def _path(setting: str) -> str:
    return f"/proc/sys/net/{setting.replace('.', '/')}"


@contextmanager
def lab_hosts() -> Iterator[Hosts]:
    """The hosts with their cables, taken down with the block."""
    hosts = Hosts(f"lab-{os.getpid()}")
    with ExitStack() as stack:
        for host in (*ENDS, "router", "manager"):
            run_ip("netns", "add", f"{hosts.name}-{host}")
            # What still runs inside keeps a namespace, and with it its end of a cable.
            stack.callback(run_ip, "netns", "del", f"{hosts.name}-{host}")
            run_ip("-n", f"{hosts.name}-{host}", "link", "set", "lo", "up")
        for end in ENDS:
            _cable(hosts, end, NEAR_DEVICE, f"{NEAR[end]}/24", "router", f"{_GATEWAY[end]}/24")
            ours, theirs = f"{_MANAGED[end]} peer {MANAGER}", f"{MANAGER} peer {_MANAGED[end]}"
            _cable(hosts, end, "manager", ours, "manager", theirs)
            run_ip("-n", f"{hosts.name}-{end}", "route", "add", "default", "via", _GATEWAY[end])
            # A scene must not begin with what the kernel learned in the one before.
            hosts.run(end, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save")
        hosts.run("router", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        hosts.link = stack.enter_context(link_ends(hosts.name, FAR))
        yield hosts


def _cable(hosts: Hosts, end: str, device: str, address: str, far: str, far_address: str) -> None:
    words = f"type veth peer name {end} netns {hosts.name}-{far}".split()
    run_ip("-n", f"{hosts.name}-{end}", "link", "add", device, *words)
    for host, name, own in ((end, device, address), (far, end, far_address)):
        run_ip("-n", f"{hosts.name}-{host}", "address", "add", *own.split(), "dev", name)
        run_ip("-n", f"{hosts.name}-{host}", "link", "set", name, "up")
