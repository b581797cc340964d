"""TLS with the Manager and with a proxy, and in words for a person what a failure of it means."""

import os
import re
import ssl
from socket import socket
from typing import Any

from requests.adapters import DEFAULT_CA_BUNDLE_PATH
from urllib3.util import ssl_
from urllib3.util.ssltransport import SSLTransport

from agent.config.settings import Config

# Debian and its like, then Red Hat and its like. certifi's file, which is taken if there is
# neither, lacks what a company has added.
SYSTEM_CAS = "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"
# By what OpenSSL's words for it have.
_WORDS = {
    "LOCAL ISSUER|SELF.SIGNED|VERIFY THE FIRST": "its certificate is of a CA that this host does"
    " not trust: set MANAGER_CA_FILE to that CA's",
    "HAS EXPIRED": "its certificate has expired, or this host's clock is wrong",
    "NOT YET VALID": "its certificate is not valid yet, or this host's clock is wrong",
    "MISMATCH": "its certificate is for another host: MANAGER_URL must have the name in it",
    "ALERT.*CERT|UNKNOWN_CA|HANDSHAKE_FAILURE": "it does not accept the client certificate, or"
    " wants one: see MANAGER_CERT_FILE",
    "WRONG_VERSION|RECORD_LAYER|PACKET_LENGTH": "no TLS is spoken there: write http:// in"
    " MANAGER_URL, or the port that has https",
    "PROTOCOL": "it knows no TLS 1.2 or newer: it must be upgraded",
}


class _Secured(SSLTransport):
    """TLS in memory. That of a proxy has the Manager's in it, which counts open files as here."""

    @property
    def _io_refs(self) -> int:
        count: int = self.socket._io_refs  # type: ignore[attr-defined]
        return count

    @_io_refs.setter
    def _io_refs(self, count: int) -> None:
        self.socket._io_refs = count  # type: ignore[attr-defined]


class _Context(ssl.SSLContext):
    """TLS in memory, over whatever socket it is given: OpenSSL itself would read past that one."""

    def wrap_socket(self, sock: socket, *_: Any, **options: Any) -> Any:
        """The secured connection."""
        return _Secured(sock, self, options.get("server_hostname"))


# As in urllib3.contrib.pyopenssl.
setattr(ssl_, "SSLContext", _Context)


def tls_contexts(config: Config) -> dict[str, ssl.SSLContext]:
    """TLS with the Manager, and with a proxy, which is shown no certificate.

    Raises OSError, with the variable of the file that cannot be used.
    """
    manager, proxy = ssl_.create_urllib3_context(), ssl_.create_urllib3_context()
    system = next(filter(os.path.exists, SYSTEM_CAS), DEFAULT_CA_BUNDLE_PATH)
    where = f"MANAGER_CA_FILE {config.manager_ca_file or system}"
    needed, fault = "a certificate", ""
    try:
        for context in (manager, proxy):
            context.load_verify_locations(config.manager_ca_file or system)
        if config.manager_cert_file:
            where = f"MANAGER_CERT_FILE {config.manager_cert_file}"
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(config.manager_cert_file)
            where = f"MANAGER_CERT_KEY_FILE {config.manager_cert_key_file}"
            needed = "the key of MANAGER_CERT_FILE, without a passphrase,"
            pair = config.manager_cert_file, config.manager_cert_key_file
            # Without an answer, OpenSSL would ask the terminal for a passphrase.
            manager.load_cert_chain(*pair, password=lambda: b"")
    except ssl.SSLError:
        fault = f"it must have {needed} in PEM"
    except OSError as error:
        fault = str(error.strerror)
    # Not in its handler: the error's context would be told instead.
    if fault:
        raise OSError(f"{where} cannot be used: {fault}")
    return {"ssl_context": manager, "proxy_ssl_context": proxy}


def words_for(error: ssl.SSLError) -> str:
    """What failed in TLS with the Manager, and what to do: OpenSSL's words are for its experts."""
    told = f"{error.reason} {getattr(error, 'verify_message', '')}"
    found = (words for pattern, words in _WORDS.items() if re.search(pattern, told.upper()))
    return next(found, f"TLS failed: {told.replace('_', ' ').lower()}")
