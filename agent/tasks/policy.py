"""The limits that the host's owner sets for a test: targets, time, streams, bitrate."""

import ipaddress
import os
import socket

import gevent
import msgspec
from gevent.event import Event
from gevent.monkey import get_original
from gevent.util import wrap_errors

from agent.config.settings import Config
from agent.config.types import Network
from agent.errors import ErrorClass, TaskError
from agent.iperf3.features import UNPACED, Features
from agent.native_threads import NativeThreads
from agent.protocol import ClientPayload

_getaddrinfo = get_original("socket", "getaddrinfo")
# A silent name server blocks one for 10 s or more, and gevent's own must stay free for the
# Manager's name.
_LOOKUPS = NativeThreads(4)


def within_limits(payload: ClientPayload, config: Config) -> ClientPayload:
    """Check time, streams and bitrate; returns the payload, with a bitrate if one is needed.

    MAX_TEST_SECONDS includes the omitted seconds. MAX_BITRATE is for the whole test, while iperf3
    takes the bitrate of one stream; `bidir` doubles the streams. A test without a bitrate, or
    with 0 for "unlimited", gets the largest one. Raises TaskError(`not_allowed`).
    """
    key = "time + omit" if payload.omit else "time"
    streams = payload.parallel * 2 if payload.bidir else payload.parallel
    total = (payload.bitrate or 0) * streams
    for name, asked, variable, most in (
        (key, payload.time + payload.omit, "MAX_TEST_SECONDS", config.max_test_seconds),
        ("parallel", payload.parallel, "MAX_PARALLEL", config.max_parallel),
        ("bitrate x streams", total, "MAX_BITRATE", config.max_bitrate),
    ):
        if most is not None and asked > most:
            words = f"{name} {asked} is over this agent's {variable} of {most}"
            raise TaskError(ErrorClass.NOT_ALLOWED, words)
    if payload.bitrate or config.max_bitrate is None:
        return payload
    return msgspec.structs.replace(payload, bitrate=max(1, config.max_bitrate // streams))


def check_burst(payload: ClientPayload, features: Features, config: Config) -> None:
    """Raise TaskError for a burst that this iperf3 would send at any rate.

    In reverse the server's iperf3 matters, which is not known here.
    """
    if payload.burst is None or payload.reverse or features.release[:2] not in UNPACED:
        return
    words = f"iperf3 {features.version} keeps to no bitrate in a test with a burst"
    if config.max_bitrate is None:
        raise TaskError(ErrorClass.UNSUPPORTED, f"{words}: leave it out, or install a newer iperf3")
    over = f"this agent's MAX_BITRATE is {config.max_bitrate}"
    raise TaskError(ErrorClass.NOT_ALLOWED, f"{words}, and {over}")


def check_core(affinity: int | str | None) -> None:
    """Raise TaskError(`arguments`) for a core that this host does not have.

    iperf3 3.18 and later would end without a message. The second of a pair is the server's.
    """
    cores = os.cpu_count()
    if affinity is not None and cores and int(str(affinity).split(",")[0]) >= cores:
        words = f"affinity {affinity}: this host has the cores 0 to {cores - 1}"
        raise TaskError(ErrorClass.ARGUMENTS, words)


def checked_target(
    host: str, ip_version: int | None, allowed: tuple[Network, ...] | None, stop: Event
) -> str:
    """The host or address for iperf3 to connect to; empty if `stop` is set first.

    With ALLOWED_TARGETS a name becomes the address that was checked: a second lookup by iperf3
    could find another one. Raises TaskError (`unknown_host`, `not_allowed`).
    """
    if allowed is None:
        return host
    family = {4: socket.AF_INET, 6: socket.AF_INET6, None: socket.AF_UNSPEC}[ip_version]
    find = wrap_errors((OSError, UnicodeError), _LOOKUPS.call)
    lookup = gevent.spawn(find, _look_up, host, family, allowed)
    gevent.wait([lookup, stop], count=1)
    if not lookup.ready():
        lookup.kill(block=False)
        return ""
    found: str | Exception = lookup.get()
    if isinstance(found, Exception):
        why = found.strerror if isinstance(found, OSError) else "this cannot be a host's name"
        raise TaskError(ErrorClass.UNKNOWN_HOST, f"{host}: {why}")
    if found:
        return found
    networks = ", ".join(map(str, allowed))
    words = f"{host} is outside this agent's ALLOWED_TARGETS ({networks})"
    raise TaskError(ErrorClass.NOT_ALLOWED, words)


def _look_up(host: str, family: int, allowed: tuple[Network, ...]) -> str:
    """The first address of a host that is allowed, or nothing.

    It may have thousands. Raises UnicodeError, or OSError, also for a zone without device.
    """
    infos = _getaddrinfo(host, None, family, socket.SOCK_STREAM)
    addresses = (_with_zone(*info[4]) for info in infos)
    return next((each for each in addresses if _is_allowed(each, allowed)), "")


def _with_zone(address: str, _: int, __: int = 0, scope: int = 0) -> str:
    """A resolved address as text, with its zone, which a link-local one needs."""
    return f"{address}%{socket.if_indextoname(scope)}" if scope else address


def _is_allowed(text: str, allowed: tuple[Network, ...]) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in allowed)
