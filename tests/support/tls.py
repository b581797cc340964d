"""A CA with the files that an agent is given, and TLS in front of a Manager."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import SHUT_WR, create_connection, socket
from urllib.parse import urlsplit

import trustme
from gevent.pool import Pool
from gevent.server import StreamServer

from tests.support.faulty_manager import FaultyManager
from tests.support.sockets import relay


@dataclass
class Authority:
    """A CA, a stranger to it, and the files that the agent is given."""

    ca: trustme.CA
    stranger: trustme.CA
    directory: Path

    def __post_init__(self) -> None:
        """Write the files."""
        self.ca_file = self.directory / "ca.pem"
        self.ca.cert_pem.write_to_path(self.ca_file)
        self.stranger_file = self.directory / "stranger.pem"
        self.stranger.cert_pem.write_to_path(self.stranger_file)
        own = self.ca.issue_cert("agent.example")
        self.own_certificate, self.own_key = self.directory / "a1.pem", self.directory / "a1.key"
        own.cert_chain_pems[0].write_to_path(self.own_certificate)
        own.private_key_pem.write_to_path(self.own_key)

    @property
    def trusting(self) -> dict[str, str]:
        """The variables of an agent that trusts this CA."""
        return {"MANAGER_CA_FILE": str(self.ca_file)}

    @property
    def known(self) -> dict[str, str]:
        """The variables of an agent that also has a certificate of this CA's."""
        return {
            **self.trusting,
            "MANAGER_CERT_FILE": str(self.own_certificate),
            "MANAGER_CERT_KEY_FILE": str(self.own_key),
        }


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """How a server with this certificate speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def good(authority: Authority) -> ssl.SSLContext:
    """As it should be."""
    return serving(authority.ca.issue_cert("127.0.0.1"))


def wrong_name(authority: Authority) -> ssl.SSLContext:
    """The certificate of another host."""
    return serving(authority.ca.issue_cert("manager.example"))


def expired(authority: Authority) -> ssl.SSLContext:
    """A certificate that was good until an hour ago."""
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    return serving(authority.ca.issue_cert("127.0.0.1", not_after=an_hour_ago))


def unknown_ca(authority: Authority) -> ssl.SSLContext:
    """A certificate of a CA that nobody here trusts."""
    return serving(authority.stranger.issue_cert("127.0.0.1"))


def demanding(authority: Authority) -> ssl.SSLContext:
    """A server that wants to see a certificate of the CA's."""
    context = good(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.ca.configure_trust(context)
    return context


def outdated(authority: Authority) -> ssl.SSLContext:
    """A server that knows nothing newer than TLS 1.1."""
    context = good(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


class Front:
    """The TLS in front of a Manager."""

    def __init__(self, manager_url: str, context: ssl.SSLContext) -> None:
        self._context = context
        self._manager = urlsplit(manager_url)
        self._connections = Pool()
        self._server = StreamServer(("127.0.0.1", 0), self._serve, spawn=self._connections)
        self._server.start()
        self.url = f"https://127.0.0.1:{self._server.server_port}"

    def change(self, context: ssl.SSLContext) -> None:
        """Close every connection, and speak TLS in another way from now on."""
        self._context = context
        self._connections.kill()

    def stop(self) -> None:
        """Close the listener and every connection."""
        self._server.stop(timeout=0.1)

    def _serve(self, connection: socket, _: object) -> None:
        with self._context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        ) as outer:
            try:
                outer.do_handshake()
            except OSError:
                # TLS 1.3 refuses a client when it has begun to speak. A server that closed now
                # would reset the connection, and the alert might never be read.
                with suppress(OSError):
                    outer.shutdown(SHUT_WR)
                    while outer.recv(65536):
                        pass
                return
            with create_connection((self._manager.hostname, self._manager.port)) as inner:
                relay(outer, inner)


@contextmanager
def front(manager: FaultyManager | str, context: ssl.SSLContext) -> Iterator[Front]:
    """TLS in front of that Manager for as long as the block lasts."""
    made = Front(manager if isinstance(manager, str) else manager.url, context)
    try:
        yield made
    finally:
        made.stop()
