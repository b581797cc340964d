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
# Those of IP that this kernel has.
VERSIONS = (4, 6) if os.path.exists("/proc/sys/net/ipv6") else (4,)
# The addresses of the ends, of IPv4 and of IPv6: by the router, and by the long link.
NEAR = {
    4: {"client": "10.97.1.2", "server": "10.97.2.2"},
    6: {"client": "fd97:1::2", "server": "fd97:2::2"},
}
FAR = {
    4: {"client": "10.97.9.1", "server": "10.97.9.2"},
    6: {"client": "fd97:9::1", "server": "fd97:9::2"},
}
# Towards the Manager, and the router's.
_MANAGED = {"client": "10.97.0.2", "server": "10.97.0.3"}
_GATEWAY = {
    4: {"client": "10.97.1.1", "server": "10.97.2.1"},
    6: {"client": "fd97:1::1", "server": "fd97:2::1"},
}
# What follows an address: an IPv6 one could not be used while the kernel looks who else has it.
_NETWORK = {4: "/24", 6: "/64 nodad"}
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
            _cable(hosts, end, NEAR_DEVICE, "router")
            for version in VERSIONS:
                gateway = _GATEWAY[version][end]
                _address(hosts, end, NEAR_DEVICE, NEAR[version][end] + _NETWORK[version])
                _address(hosts, "router", end, gateway + _NETWORK[version])
                run_ip("-n", f"{hosts.name}-{end}", "route", "add", "default", "via", gateway)
            _cable(hosts, end, "manager", "manager")
            _address(hosts, end, "manager", f"{_MANAGED[end]} peer {MANAGER}")
            _address(hosts, "manager", end, f"{MANAGER} peer {_MANAGED[end]}")
            # A scene must not begin with what the kernel learned in the one before.
            hosts.run(end, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save")
        hosts.link = stack.enter_context(link_ends(hosts.name, FAR[4]))
        for version in VERSIONS:
            forwarding = f"/proc/sys/net/ipv{version}/conf/all/forwarding"
            hosts.run("router", "sh", "-c", f"echo 1 >{forwarding}")
        if 6 in VERSIONS:
            for end in ENDS:
                _address(hosts, end, FAR_DEVICE, FAR[6][end] + _NETWORK[6])
        yield hosts


def _cable(hosts: Hosts, end: str, device: str, far: str) -> None:
    words = f"type veth peer name {end} netns {hosts.name}-{far}".split()
    run_ip("-n", f"{hosts.name}-{end}", "link", "add", device, *words)
    for host, name in ((end, device), (far, end)):
        run_ip("-n", f"{hosts.name}-{host}", "link", "set", name, "up")


def _address(hosts: Hosts, host: str, device: str, address: str) -> None:
    words = ["address", "add", *address.split(), "dev", device]
    run_ip("-n", f"{hosts.name}-{host}", *words)
