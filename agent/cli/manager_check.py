"""What `--check` finds at the Manager, and on the way to it."""

import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from socket import create_connection
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from agent import host, protocol
from agent.config.settings import Config
from agent.errors import KeyRefused, ManagerError, ManagerRefused
from agent.manager import reasons
from agent.manager.api import HEALTH, ManagerClient
from agent.manager.proxy import proxy_of
from agent.manager.tls import tls_contexts
from agent.manager.transport import Answer
from agent.text import without_user

# Seconds. The Manager's `Date` has whole ones, and is older by the time that the answer took.
CLOCKS_AGREE = 5.0
HANDSHAKE_TAKES = 5.0
_KINDS = {"text/html": "HTML", "application/json": "JSON", "": "no content type"}


class Finding(NamedTuple):
    """One line of the check; `fault` is empty, "warning" or what the exit code depends on."""

    name: str
    message: str
    fault: str = ""


def check_manager(config: Config, try_key: bool) -> Iterator[Finding]:
    """Check the way to the Manager and who answers there; with `try_key` register there."""
    url, name, status = config.manager_url, "proxy", 0
    try:
        proxy = proxy_of(url)
        if proxy:
            yield Finding("proxy", f"the Manager is asked through {without_user(proxy)}")
        name = "TLS"
        if urlsplit(url).scheme == "https":
            tls_contexts(config)
    except OSError as error:
        yield Finding(name, str(error), "settings")
        return
    try:
        address = config.advertise_address or host.local_address(proxy or url)
    except OSError as error:
        yield Finding("Manager", f"{url}: {reasons.why(error, url)}", "manager")
        return
    yield _address(address, is_right=bool(config.advertise_address) or host.is_loopback(url))
    client = ManagerClient(config, lambda: config.agent_key)
    try:
        status, answer = client.ask_health()
        finding = _judged(url, status, answer)
    except ManagerError as error:
        finding = Finding("Manager", f"{url}{error}", "manager")
    if finding.fault and not proxy and status in (0, 400) and _speaks_tls(url):
        words = f"{url}: the port speaks https: write https:// in MANAGER_URL"
        finding = Finding("Manager", words, "manager")
    yield finding
    if not finding.fault:
        yield from _clock(answer.headers)
        if try_key:
            yield _registration(client, address)


def _address(address: str, is_right: bool) -> Finding:
    words = f"the Manager is told {address}"
    if not host.interface_of(address.partition("%")[0]).interface:
        words += ", which is no address of this host: right only if a NAT leads from it to here"
        return Finding("address", words, "warning")
    if host.is_reachable(address):
        return Finding("address", words)
    words += "; for tests with other hosts set ADVERTISE_ADDRESS"
    return Finding("address", words, "" if is_right else "settings")


def _judged(url: str, status: int, answer: Answer) -> Finding:
    """Whether that is a Manager's answer, and else what it may be."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if status == 200:
            msgspec.json.decode(answer.content, type=protocol.Health)
            return Finding("Manager", f"{url} answers")
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()[:40]
    why = "is this a Manager?"
    if urlsplit(url).path.endswith(("/v1", "/v1/agent")):
        why = "MANAGER_URL must end before /v1, which the agent adds"
    elif location := answer.headers.get("Location"):
        why = f"it leads to {location[:200]}: MANAGER_URL must be the Manager's own"
    elif said := reasons.suspect(status, url):
        why = said
    elif status >= 500:
        why = "the Manager has a fault, or a proxy before it"
    words = f"asked {url}{HEALTH}, got {status} with {_KINDS.get(kind, kind)}: {why}"
    return Finding("Manager", words, "manager")


def _speaks_tls(url: str) -> bool:
    """Whether TLS is spoken where the URL says http."""
    parts, context = urlsplit(url), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError, UnicodeError):
        address = host.host_of(url), parts.port or 80
        with create_connection(address, HANDSHAKE_TAKES) as connection:
            context.wrap_socket(connection).close()
            return parts.scheme == "http"
    return False


def _clock(headers: Mapping[str, str]) -> Iterator[Finding]:
    with suppress(ValueError, OverflowError):
        ahead = time.time() - parsedate_to_datetime(headers.get("Date", "")).timestamp()
        if abs(ahead) > CLOCKS_AGREE:
            words = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the Manager's"
            yield Finding("clock", f"{words}: one of them is wrong", "warning")


def _registration(client: ManagerClient, address: str) -> Finding:
    try:
        record = client.register(address, host.operating_system())
    except ManagerError as error:
        words = f"the Manager answers {error}"
        if not isinstance(error, ManagerRefused):
            return Finding("key", words, "manager")
        kind = "key" if isinstance(error, KeyRefused) else "agent"
        return Finding("key", f"{words}: {error.advice}", kind)
    return Finding("key", f"the Manager has registered this host as agent {record.id}")
