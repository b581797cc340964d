"""The types of the settings: which texts each accepts, and the value that a text becomes."""

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent import files
from agent.text import without_user

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


class InvalidValue(ValueError):
    """A text is refused, and the message says what is wrong with it."""


@dataclass(frozen=True)
class Kind:
    """One type of setting.

    `accepted` completes the sentence "must be ...". `convert` turns a text into a value or raises
    ValueError, and `accepts` tells of a value whether it is one. `choices` are the only texts
    accepted, if there are just a few. `redact` removes from a text what a message must not repeat.
    """

    accepted: str
    convert: Callable[[str], Any]
    accepts: Callable[[Any], object] = lambda value: True
    choices: tuple[str, ...] = ()
    redact: Callable[[str], str] = str

    def parse(self, text: str) -> Any:
        """The value of a text; raises ValueError."""
        value = self.convert(text)
        if not self.accepts(value):
            raise ValueError
        return value


def one_of(*choices: str) -> Kind:
    """One of a few words, in upper or lower case."""
    words = f"{', '.join(choices[:-1])} or {choices[-1]}"
    return Kind(words, str.lower, choices.__contains__, choices)


def _between(convert: Callable[[str], float], words: str, low: float, high: float) -> Kind:
    # Of NaN every comparison is false.
    return Kind(f"{words} from {low} to {high}", convert, lambda number: low <= number <= high)


whole = partial(_between, int, "a whole number")
seconds = partial(_between, float, "a number of seconds")


def size(low: int) -> Kind:
    """A number of bytes; K, M, G and T are powers of 1024, as in iperf3."""
    words = f"a number of bytes, like 64M, of at least {low}"
    return Kind(words, partial(_scaled, 1024), lambda number: number >= low)


def _scaled(unit: int, text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,18})([KMGT]?)", text.upper())
    return int(match[1]) * int(unit ** _POWERS[match[2]]) if match else 0


def _plain(text: str) -> str:
    """The text, of which each byte was UTF-8 and no character steers a terminal."""
    if not text.isprintable():
        raise InvalidValue("it must be plain text in UTF-8")
    return text


def _url(text: str) -> str:
    if "@" in text:
        raise InvalidValue("it must not name a user")
    if re.search(r"[\s?#]", text):
        raise InvalidValue("it must not have a space, a query or a fragment")
    parts = urlsplit(_plain(text))
    if parts.scheme not in ("http", "https"):
        raise InvalidValue("it must start with http:// or https://")
    if not parts.hostname:
        raise InvalidValue("it must name a host")
    try:
        if parts.port == 0:
            raise ValueError
    except ValueError as error:
        raise InvalidValue("its port must be between 1 and 65535") from error
    return text.rstrip("/")


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # an unknown user, or one without a home
        raise ValueError from error


def _address(text: str) -> str:
    found = ipaddress.ip_address(_plain(text))
    if found.is_unspecified or found.is_multicast:
        raise ValueError
    return str(found)


def _networks(text: str) -> tuple[Network, ...]:
    parts = _plain(text).split(",")
    return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in parts)


def _host_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{_plain(text)}")
    if not parts.hostname or parts.port is None or re.search(r"[\s/?#@]", text):
        raise ValueError
    return parts.hostname, parts.port


URL = Kind("a URL like https://manager.example:8000", _url, redact=without_user)
# Safe in an HTTP header, in a path and on a log line.
NAME = Kind(
    "1 to 64 letters, digits, '_', '.' or '-', not starting with '.' or '-'",
    str,
    re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}").fullmatch,
)
# K, M, G and T are powers of 1000, as in iperf3.
RATE = Kind(
    "a number of bits per second, like 500M or 10G",
    partial(_scaled, 1000),
    lambda number: number > 0,
)
PROGRAM = Kind("a command or a path", str)
PATH = Kind("a path", _expanded)
READABLE_FILE = Kind(
    "a file that this user can read",
    _expanded,
    lambda file: file.is_file() and os.access(file, os.R_OK),
)
WRITABLE_FILE = Kind("a file that this user can write", _expanded, files.is_writable_file)
ADDRESS = Kind("an IP address by which others reach this host, like 192.0.2.7", _address)
NETWORKS = Kind("networks separated by commas, like 10.0.0.0/8,fd00::/8", _networks)
# An IPv6 address stands in brackets.
HOST_PORT = Kind("HOST:PORT, like 127.0.0.1:9201", _host_port, lambda found: found[1] > 0)
