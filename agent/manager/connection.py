"""Connections that let everything else run, however much the peer sends and however fast.

http.client, urllib3 and OpenSSL read in loops of their own, and gevent lets others run only where a
read has to wait. A peer that always has more ready would hold the whole agent, past every deadline.
Here all bytes come through one socket, below HTTP, TLS and proxies, which counts and pauses.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from http import client
from socket import socket
from typing import Any
from urllib.parse import urlsplit

from gevent.socket import wait_read  # type: ignore[attr-defined]
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from agent.config.settings import Config
from agent.host import host_of
from agent.manager.proxy import ProxyFailed, proxy_of
from agent.manager.tls import tls_contexts
from agent.native_threads import NativeThreads

# Bytes for one answer with all that is around its content, and as many to connect.
MAX_RECEIVED = 2 * 1024**2
# How many of them may come before the content. Python parses headers in one go, and 2 MiB of them
# for seconds.
MAX_HEAD = 64 * 1024
_THREADS = NativeThreads(4)


class _Socket(socket):
    """A connected socket. `left` is how much more it may receive."""

    def __init__(self, connected: socket) -> None:
        super().__init__(fileno=connected.detach())
        self.left = MAX_RECEIVED

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """As ever, but others run first."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(buffer, size, flags)])

    def recv_into(self, *args: Any) -> int:
        """As ever, but others run first."""
        wait_read(self.fileno())
        count = super().recv_into(*args)
        self.left -= count
        if self.left < 0:
            raise OSError("the answer is too long")
        return count


@contextmanager
def _to_proxy(connection: HTTPConnection) -> Iterator[None]:
    """Blame a proxy for what fails here. urllib3 does so for a Manager that hangs up, too."""
    try:
        yield
    except (OSError, client.HTTPException, HTTPError) as error:
        raise ProxyFailed("no way", error) if connection.proxy else error from error.__cause__


class _Answer(client.HTTPResponse):
    """An answer. Interim ones may go before it (RFC 9110, 15.2); http.client skips 100 alone."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 101 < found[1] < 200:
                return found
            client.parse_headers(self.fp)


class _Connection(HTTPConnection):
    response_class = _Answer
    _socket: _Socket

    def _new_conn(self) -> socket:
        with _to_proxy(self):
            self._socket = _Socket(super()._new_conn())
        return self._socket

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3
        """The answer; the count begins anew, as a connection may be used for any number."""
        self._socket.left = MAX_HEAD
        answer = super().getresponse()
        self._socket.left = MAX_RECEIVED
        return answer


class _SecureConnection(_Connection, HTTPSConnection):
    """The same with TLS."""

    def _connect_tls_proxy(self, *args: Any) -> Any:
        with _to_proxy(self):
            return super()._connect_tls_proxy(*args)

    def _tunnel(self) -> None:
        with _to_proxy(self):
            super()._tunnel()


class Adapter(HTTPAdapter):
    """Sends requests over such connections, through the environment's `proxies` to another host.

    It does so without a session of requests, which would follow a redirect with the key, and let
    .netrc and REQUESTS_CA_BUNDLE override what was set. The files for TLS are read here, and not by
    requests, which would do that in the hub's thread.
    """

    def __init__(self, config: Config) -> None:
        """Read the files if the Manager's URL says https; raises OSError."""
        url = config.manager_url
        self.proxies = {"all": proxy_of(url)}
        is_secure = urlsplit(url).scheme == "https"
        self._contexts = _THREADS.call(tls_contexts, config) if is_secure else {}
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the manager of the connections that use no proxy."""
        super().init_poolmanager(*args, ssl_context=self._contexts.get("ssl_context"), **kwargs)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """The manager of the connections through a proxy."""
        return super().proxy_manager_for(*args, **kwargs | self._contexts)

    def build_connection_pool_key_attributes(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """What a pool is made for: the zone of a link-local address is as the system takes it."""
        place, tls = super().build_connection_pool_key_attributes(request, *args, **kwargs)
        host = host_of(request.url)
        return place | {"host": f"[{host}]" if ":" in host else host}, tls

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """The pool of the connections for a request, with or without a proxy."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _SecureConnection if pool.scheme == "https" else _Connection
        return pool

    def cert_verify(self, *args: Any) -> None:
        """Nothing: that is in the contexts."""

    def build_response(self, req: Any, resp: Any) -> Any:
        """The answer without its cookies: http.cookiejar takes minutes over some, and keeps all."""
        del resp._original_response.msg["Set-Cookie"]
        return super().build_response(req, resp)
