"""Facts about the host."""

import platform
import socket
from pathlib import Path

import pytest

from agent import host
from agent.host import Route


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost:8000", True),
        ("http://127.0.0.1", True),
        ("http://127.9.9.9:1", True),
        ("https://[::1]:8000/x", True),
        ("http://10.0.0.1", False),
        ("https://localhost.example", False),
        ("https://[fd00::1]", False),
        ("http://", False),
    ],
)
def test_loopback_is_recognized_by_name_and_by_address(url: str, loopback: bool) -> None:
    assert host.is_loopback(url) is loopback


@pytest.mark.parametrize(
    ("url", "address"),
    [("http://127.0.0.1:8000", "127.0.0.1"), ("http://[::1]:8000", "::1")],
)
def test_the_local_address_is_that_of_the_route(url: str, address: str) -> None:
    assert host.local_address(url) == address


@pytest.mark.parametrize(
    ("address", "reachable"),
    [
        ("10.0.0.1", True),
        ("169.254.1.1", True),
        ("fd00::1", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_an_address_of_this_host_alone_is_not_for_others(address: str, reachable: bool) -> None:
    assert host.is_reachable(address) is reachable


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://[fe80::1%25eth0]:8000", "fe80::1%eth0"),
        ("http://[fe80::1%eth0]", "fe80::1%eth0"),
        ("http://[fe80::1%2525]", "fe80::1%25"),
        ("http://[fe80::1%25]", "fe80::1%25"),
        ("https://manager.example/x", "manager.example"),
    ],
)
def test_the_zone_in_a_url_is_read_as_the_system_has_it(url: str, name: str) -> None:
    assert host.host_of(url) == name


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 64])
def test_a_name_without_an_address_has_no_route(name: str) -> None:
    with pytest.raises(OSError):
        host.local_address(f"http://{name}:8000")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_route_to_this_host_is_its_loopback_interface(address: str) -> None:
    mtu = int(Path("/sys/class/net/lo/mtu").read_text())
    assert host.route_to(address) == Route("lo", mtu, 0)


@pytest.mark.parametrize(
    ("address", "index"),
    [("127.0.0.1", 0), ("127.0.0.9", 0), ("::1", 0), ("192.0.2.1", 1), ("", 1)],
)
def test_an_interface_is_known_by_its_index_or_by_an_address_that_it_has(
    address: str, index: int
) -> None:
    """All of 127.0.0.0/8 is the loopback's. The index is of a device that a socket is bound to."""
    assert host.interface_of(address, index).interface == socket.if_indextoname(1) == "lo"


def test_an_address_of_no_interface_has_an_empty_route() -> None:
    assert host.interface_of("192.0.2.1") == Route()


def test_a_device_decides_the_route_whatever_the_target_is() -> None:
    assert host.route_to("192.0.2.1", "lo").interface == "lo"
    assert host.route_to("127.0.0.1", "no-such-device") == Route()


@pytest.mark.parametrize("target", ["localhost", "no-such-host.invalid", "", "fe80::1%nonesuch"])
def test_a_target_that_is_not_an_address_has_an_empty_route(target: str) -> None:
    assert host.route_to(target) == Route()


def test_the_kernel_and_the_system_are_named() -> None:
    assert host.kernel() == f"{platform.system()} {platform.release()}"
    assert host.operating_system() == platform.freedesktop_os_release()["PRETTY_NAME"]


def test_the_default_congestion_control_is_one_that_the_kernel_has() -> None:
    known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    assert host.default_congestion() in known
