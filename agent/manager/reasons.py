"""Why a call to the Manager failed, in words for a person: those of libraries are for others."""

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException

from requests import RequestException
from urllib3.exceptions import HTTPError, IncompleteRead, InvalidChunkLength, LocationValueError

from agent.files import Whose
from agent.host import host_of
from agent.manager.proxy import ProxyFailed, proxy_of
from agent.manager.tls import words_for
from agent.text import without_user

_REFUSED = "{0} refuses the connection: it does not run, a firewall forbids it, or {1} is wrong"
_NO_ROUTE = "there is no route to {0}: check {1}, and this host's network"
_SILENT = "{0} does not answer: it is down, a firewall drops what is sent, or {1} is wrong"
_ENDED = "{0} ended the connection: it is starting, or {1} must {2}begin with https"
_CUT_SHORT = "the answer of {0} was cut short: see its log, and that of a proxy before it"
_BAD_URL = "{0} has a name or a user that cannot be sent: check {1}"
_FORBIDDEN = "a firewall of this host forbids the connection to {0}"
_SHORT = "this host has no memory or descriptors left to call {0}"
# By the error's number, else by its class. {0} is the Manager or its proxy, {1} what has the URL,
# {2} "not " if that begins with https.
_WORDS: dict[object, str] = {
    errno.ECONNREFUSED: _REFUSED,
    **dict.fromkeys((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL), _NO_ROUTE),
    errno.EINVAL: f"{_NO_ROUTE}. An address like fe80::1 needs a zone: [fe80::1%25eth0]",
    **dict.fromkeys((errno.ETIMEDOUT, TimeoutError), _SILENT),
    **dict.fromkeys((errno.EACCES, errno.EPERM), _FORBIDDEN),
    **dict.fromkeys(Whose.HOST.value, _SHORT),
    socket.EAI_AGAIN: "no name server tells the name of {0} now: check {1}, and this host's DNS",
    socket.gaierror: "the name of {0} is not known: check {1}, and this host's DNS",
    **dict.fromkeys((ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError), _ENDED),
    **dict.fromkeys((IncompleteRead, InvalidChunkLength), _CUT_SHORT),
    HTTPException: "{0} speaks no HTTP: check the port in {1}, or whether it must begin with https",
    HTTPError: "the answer of {0} cannot be read: check {1}",
    **dict.fromkeys((UnicodeError, LocationValueError, RequestException), _BAD_URL),
}


def why(error: BaseException, url: str) -> str:
    """Why a call to the Manager's URL got no answer, and what to do; no password is in it."""
    proxy, causes = _proxy(url), list(_causes(error))
    whom, where, called = "the Manager", "MANAGER_URL", url
    if proxy and (url.startswith("http:") or ProxyFailed in map(type, causes)):
        whom, where, called = _named(proxy), "the proxy's URL", proxy
    negation = "not " if called.startswith("https:") else ""
    for cause in reversed(causes):
        if refused := re.match(r"Tunnel connection failed: (\d+)", str(cause)):
            return f"{_meant(proxy, int(refused[1]), url)} (CONNECT: {refused[1]})"
        if isinstance(cause, ssl.SSLError) and type(cause) not in _WORDS:
            return f"{whom}: {words_for(cause).replace('MANAGER_URL', where)}"
        if type(cause) is OSError and cause.errno is None:
            return str(cause)  # raised on purpose, with words
        if isinstance(cause, socket.gaierror) and (zone := host_of(called).partition("%")[2]):
            return f"this host has no interface {zone}, which {where} names: check it"
        # The numbers of TLS are others.
        number = None if isinstance(cause, ssl.SSLError) else getattr(cause, "errno", None)
        for key in (number, *type(cause).__mro__):
            if key in _WORDS:
                return _WORDS[key].format(whom, where, negation)
        if number:
            return f"the call to {whom} failed: {os.strerror(number)}"
    return f"the call to {whom} failed: {type(error).__name__}"


def way_of(url: str) -> str:
    """Who may be the one that is silent."""
    return f"{_named(proxy)}, or the Manager behind it" if (proxy := _proxy(url)) else "the Manager"


def suspect(status: int, url: str) -> str:
    """What an answer means that is not in the Manager's words, if it may be a proxy's; else empty.

    Over https a proxy only passes on what it cannot read.
    """
    # What is not there is not there for the Manager: a proxy that refuses says another status.
    proxy = _proxy(url) if url.startswith("http:") and status != 404 else ""
    # Nobody else asks for such a login.
    return proxy and f"{'most likely ' if status != 407 else ''}{_meant(proxy, status, url)}"


def _proxy(url: str) -> str:
    with suppress(OSError):
        return proxy_of(url)
    return ""


def _named(proxy: str) -> str:
    return f"the proxy {without_user(proxy)}"


def _meant(proxy: str, status: int, url: str) -> str:
    if status == 407:
        login = "another user and password than those" if "@" in proxy else "a user and a password"
        return f"{_named(proxy)} wants {login} in its URL, as in http://USER:PASSWORD@HOST:PORT"
    if status >= 500:
        return f"{_named(proxy)} does not reach {url}: check that URL, and the proxy's log"
    return f"{_named(proxy)} does not allow {url}: allow it there, or set NO_PROXY for that host"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was made of: requests wraps urllib3's, which wraps the system's."""
    yield error
    if isinstance(error, OSError) and error.errno is not None:
        return
    inner = getattr(error, "reason", None), *error.args, error.__cause__, error.__context__
    for each in [each for each in inner if isinstance(each, BaseException)][:1]:
        yield from _causes(each)
