"""Connections that let everything else run, however much the peer sends and however fast.

http.client, urllib3 and OpenSSL read in loops of their own, and gevent lets others run only where a
read has to wait. A peer that always has more ready would hold the whole agent, past every deadline.
Here all bytes come through one socket, below HTTP, TLS and proxies, which counts and pauses.
"""

import ssl
from socket import socket
from typing import Any

from gevent.socket import wait_read  # type: ignore[attr-defined]
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import ssl_
from urllib3.util.ssltransport import SSLTransport

# Bytes for one answer with all that is around its content, and as many to connect.
MAX_RECEIVED = 2 * 1024**2
# How many of them may come before the content. Python parses headers in one go, and 2 MiB of them
# for seconds.
MAX_HEAD = 64 * 1024


class _Socket(socket):
    """A connected socket. `left` is how much more it may receive."""

    def __init__(self, connected: socket) -> None:
        super().__init__(fileno=connected.detach())
        self.left = MAX_RECEIVED

    def recv(self, *args: Any) -> bytes:
        """As ever, but others run first."""
        wait_read(self.fileno())
        data = super().recv(*args)
        self._count(len(data))
        return data

    def recv_into(self, *args: Any) -> int:
        """As ever, but others run first."""
        wait_read(self.fileno())
        count = super().recv_into(*args)
        self._count(count)
        return count

    def _count(self, received: int) -> None:
        self.left -= received
        if self.left < 0:
            raise OSError("the answer is too long")


class _Context(ssl.SSLContext):
    """TLS in memory, over whatever socket it is given: OpenSSL itself would read past that one."""

    def wrap_socket(self, sock: socket, *_: Any, **options: Any) -> Any:
        """The secured connection."""
        return SSLTransport(sock, self, options.get("server_hostname"))


# As in urllib3.contrib.pyopenssl. A context of one's own would not be used for a proxy's TLS.
setattr(ssl_, "SSLContext", _Context)


class _Connection(HTTPConnection):
    _socket: _Socket

    def _new_conn(self) -> socket:
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


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Adapter(HTTPAdapter):
    """Makes a session of requests use such connections, through a proxy too."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the manager of the connections that use no proxy."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager = _counting(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """The manager of the connections through a proxy."""
        return _counting(super().proxy_manager_for(*args, **kwargs))

    def build_response(self, req: Any, resp: Any) -> Any:
        """The answer without its cookies: http.cookiejar takes minutes over some, and keeps all."""
        del resp._original_response.msg["Set-Cookie"]
        return super().build_response(req, resp)


def _counting(manager: PoolManager) -> PoolManager:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager
