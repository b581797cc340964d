"""What the agent finds out about its host."""

import pytest

from agent import host


@pytest.mark.parametrize(
    ("url", "address"),
    [("http://127.0.0.1:8000", "127.0.0.1"), ("http://[::1]:8000", "::1")],
)
def test_the_address_is_that_of_the_route(url: str, address: str) -> None:
    assert host.local_address(url) == address


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 64])
def test_a_name_without_a_route_is_an_os_error(name: str) -> None:
    with pytest.raises(OSError):
        host.local_address(f"http://{name}:8000")


def test_the_loopback_interface_is_known_with_its_mtu() -> None:
    route = host.route_to("127.0.0.1")
    assert (route.interface, route.mtu > 0) == ("lo", True)
    assert host.route_to("no-address") == host.Route()
