"""Which proxy the environment names for a URL."""

import ipaddress
import os
from contextlib import suppress
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import ProxyError

from agent.host import host_of, is_loopback
from agent.text import without_user


class ProxyFailed(ProxyError):
    """There is no way to the proxy, or it opens none to the Manager."""


def proxy_of(url: str) -> str:
    """The URL of the proxy for that URL, with the password in it; empty if there is none.

    A Manager on loopback has none. No name is looked up: that of the Manager is the proxy's to
    resolve. Raises OSError with words for a person if the variable has no URL of an HTTP proxy.
    """
    if is_loopback(url) or _is_in_network_without_proxy(host_of(url)):
        return ""
    proxy = select_proxy(url, get_environ_proxies(url)) or ""
    proxy = f"http://{proxy}" if proxy and "://" not in proxy else proxy
    with suppress(ValueError):
        parts = urlsplit(proxy)
        if not proxy or parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return proxy
    accepted = "must be like http://proxy.example:3128, as the agent uses HTTP proxies only"
    raise OSError(f"the proxy in the environment is {without_user(proxy)!r}: {accepted}")


def _is_in_network_without_proxy(host: str) -> bool:
    """Whether NO_PROXY has the network of an address, as requests knows only IPv4's."""
    for each in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")).split(","):
        with suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(each.strip(" []"), strict=False):
                return True
    return False
