"""What this host is: its address, and what a result's reader wants to know of it."""

import ipaddress
import platform
import re
import resource
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Route(NamedTuple):
    """The interface a test leaves by, with its MTU in bytes and speed in Mbit/s (0: unknown)."""

    interface: str = ""
    mtu: int = 0
    speed_mbps: int = 0


def is_loopback(url: str) -> bool:
    """Whether the URL's host, such as that of `//HOST:PORT`, is this machine's loopback."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or _is_loopback_address(host)
    except ValueError:
        return False


def is_bound_to_loopback(listener: socket.socket) -> bool:
    """Whether a socket listens on loopback alone; a name, or 127.1, may mean that as well."""
    return _is_loopback_address(listener.getsockname()[0])


def _is_loopback_address(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def names_loopback(host: str) -> bool:
    """Whether a request's `Host` is one that means this machine, whoever asks.

    Any other comes from a web page whose name was made to point here (DNS rebinding).
    """
    # None of these is in a host's name; in a URL they would end it, or have another before it.
    return not set("@/?#\\") & set(host) and is_loopback(f"//{host}")


def host_of(url: str) -> str:
    """The host's name or address in a URL, its zone as the system takes it: RFC 6874 has `%25`."""
    return re.sub("%25(?=.)", "%", urlsplit(url).hostname or "")


def place(host: str, port: int) -> str:
    """A host and a port as a URL has them: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def local_address(url: str) -> str:
    """The local address of the route to the URL's host; raises OSError without name or route."""
    host = host_of(url)
    try:
        info = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    except UnicodeError as error:  # a label of more than 63 characters
        raise OSError(f"{host} is no host name") from error
    return _source_address(info[0], info[4])


def is_reachable(address: str) -> bool:
    """Whether an address means the same elsewhere: on loopback and without a zone it does not."""
    is_zoned = ":" in address and ipaddress.ip_address(address).is_link_local
    return not (is_zoned or _is_loopback_address(address))


def _source_address(family: int, target: Any) -> str:
    """Connecting a UDP socket chooses the route and sends nothing."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)
        return str(probe.getsockname()[0])


def route_to(address: str, device: str | None = None) -> Route:
    """The route to an address, or by a device; an empty one where there is none.

    `address` must be an address and no name: nothing is looked up, and nothing waits.
    """
    host, _, zone = address.partition("%")
    try:
        if device:
            return interface_of("", socket.if_nametoindex(device))
        if ipaddress.ip_address(host).version == 4:
            return interface_of(_source_address(socket.AF_INET, (host, 9)))
        scope = socket.if_nametoindex(zone) if zone else 0
        return interface_of(_source_address(socket.AF_INET6, (host, 9, 0, scope)), scope)
    except (OSError, ValueError):
        return Route()


def interface_of(address: str, index: int = 0) -> Route:
    """The interface of that index, or else the one that has the address; raises OSError."""
    # Imported here: an agent that has run no test yet is a megabyte smaller without it.
    import psutil

    name = socket.if_indextoname(index) if index else ""
    # Only the first of them is an interface's.
    address = "127.0.0.1" if address.startswith("127.") else address
    for each, addresses in psutil.net_if_addrs().items():
        if not name and any(one.address.partition("%")[0] == address for one in addresses):
            name = each
    with suppress(OSError):
        if stats := psutil.net_if_stats().get(name):
            return Route(name, stats.mtu, stats.speed)
    return Route(name)


def allow_descriptors() -> int:
    """Have as many descriptors as the host's owner allows at most; returns how many.

    A shell's usual 1,024 are fewer than MAX_TASKS children need, each with one of its own.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS calls its limit infinite and takes no such number.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def kernel() -> str:
    """The kernel's name and release."""
    return f"{platform.system()} {platform.release()}"


def operating_system() -> str:
    """The distribution in words where it says so, else the kernel."""
    # Its file may have any bytes.
    with suppress(OSError, UnicodeDecodeError):
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return kernel()


def default_congestion() -> str:
    """The kernel's default TCP congestion control, empty where it cannot be read."""
    try:
        return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    except OSError:
        return ""
