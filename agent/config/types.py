"""What a setting's text may be, and how it becomes a value.

Each maker returns a Kind: the words for "what is accepted" and a function that turns the text
into the value or raises ValueError.
"""

import ipaddress
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from agent import files

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


class Unfit(ValueError):
    """A value is not accepted, and its message says what about it."""


@dataclass(frozen=True)
class Kind:
    """One kind of value: `accepted` ends the sentence "must be ...". `words` are all there are.

    `shown` makes of a text what a message may repeat of it.
    """

    accepted: str
    read: Callable[[str], Any]
    words: tuple[str, ...] = ()
    shown: Callable[[str], str] = str


def url() -> Kind:
    """An http or https URL without user, query or fragment."""

    def read(text: str) -> str:
        if "@" in text:
            raise Unfit("it names a user")
        if re.search(r"[\s?#]", text):
            raise Unfit("it has a blank, a query or a fragment")
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https"):
            raise Unfit("it begins with neither http:// nor https://")
        if not parts.hostname:
            raise Unfit("it has no host")
        if not _has_good_port(parts):
            raise Unfit("its port is no number from 1 to 65535")
        return text.rstrip("/")

    return Kind("a URL like https://manager.example:8000", read, shown=_without_user)


def _has_good_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _without_user(text: str) -> str:
    """A URL without whatever stands before an @, as that may be a password."""
    return re.sub(r"(?is)^([a-z]+://)?.*@", r"\1[hidden]@", text)


def name() -> Kind:
    """A name that is safe in an HTTP header, in a path and on a log line."""

    def read(text: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", text):
            raise ValueError
        return text

    return Kind("1 to 64 letters, digits, _, . and -, the first no . or -", read)


def one_of(*choices: str) -> Kind:
    """One of a few words, in any case."""

    def read(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError
        return text.lower()

    return Kind(" or ".join(choices), read, choices)


def whole(low: int, high: int) -> Kind:
    """A whole number within bounds."""

    def read(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError
        return number

    return Kind(f"a whole number from {low} to {high}", read)


def seconds(low: float, high: float) -> Kind:
    """A number of seconds within bounds."""

    def read(text: str) -> float:
        number = float(text)
        if not math.isfinite(number) or not low <= number <= high:
            raise ValueError
        return number

    return Kind(f"a number of seconds from {low} to {high}", read)


def size(low: int) -> Kind:
    """A number of bytes; K, M, G and T count by 1024, as in iperf3."""
    return Kind(f"bytes, like 64M, at least {low}", _scaled(1024, low))


def rate() -> Kind:
    """A number of bits per second; K, M, G and T count by 1000, as in iperf3."""
    return Kind("bits per second, like 500M or 10G", _scaled(1000, 1))


def _scaled(unit: int, low: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,18})([KMGT]?)", text.upper())
        if not match:
            raise ValueError
        number = int(match[1]) * unit ** _POWERS[match[2]]
        if number < low:
            raise ValueError
        return int(number)

    return read


def path() -> Kind:
    """A path; `~` is the home directory."""
    return Kind("a path", _expanded)


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # nobody of that name, or no home
        raise ValueError from error


def readable_file() -> Kind:
    """A file that this user can read."""

    def read(text: str) -> Path:
        found = _expanded(text)
        if not found.is_file() or not os.access(found, os.R_OK):
            raise ValueError
        return found

    return Kind("a file that can be read", read)


def writable_file() -> Kind:
    """A file that this user can write or make. It is not touched."""

    def read(text: str) -> Path:
        found = _expanded(text)
        if not files.is_writable_file(found):
            raise ValueError
        return found

    return Kind("a file that this user can write", read)


def address() -> Kind:
    """An IPv4 or IPv6 address that others can send to."""

    def read(text: str) -> str:
        found = ipaddress.ip_address(text)
        if found.is_unspecified or found.is_multicast:
            raise ValueError
        return str(found)

    return Kind("an IP address of this host, like 192.0.2.7", read)


def networks() -> Kind:
    """Networks or addresses, with commas between them."""

    def read(text: str) -> tuple[Network, ...]:
        return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(","))

    return Kind("networks with commas between them, like 10.0.0.0/8,fd00::/8", read)


def host_port() -> Kind:
    """A host and a port; an IPv6 address stands in brackets."""

    def read(text: str) -> tuple[str, int]:
        parts = urlsplit(f"//{text}")
        if not parts.hostname or not parts.port or re.search(r"[\s/?#@]", text):
            raise ValueError
        return parts.hostname, parts.port

    return Kind("HOST:PORT, like 127.0.0.1:9201", read)
