"""What the environment may say about connections, and what only the settings may."""

import ssl
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from socket import socket
from subprocess import run

import pytest

from agent.errors import ManagerUnavailable
from tests.support.faulty_manager import reply, well
from tests.support.sockets import MakeManager, access, client_of, client_with, serving

pytestmark = pytest.mark.process

PROXY_VARIABLES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY")


def test_a_manager_on_loopback_is_asked_without_proxy_and_without_netrc(
    faulty: MakeManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy, manager = faulty(well), faulty(well)
    for variable in PROXY_VARIABLES:
        monkeypatch.setenv(variable, proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("default login stranger password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    client_of(manager).claim("key")
    assert proxy.requests == []
    (request,) = manager.requests
    assert "authorization" not in request.headers


def test_a_manager_elsewhere_is_asked_through_the_proxy_of_the_environment(
    faulty: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = faulty(well)
    for variable in PROXY_VARIABLES:
        monkeypatch.setenv(variable, proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    client_with(access("http://manager.invalid:8000")).claim("key")
    (request,) = proxy.requests
    assert request.path == "http://manager.invalid:8000/v1/agent/tasks/claim"


@pytest.fixture(name="certificate", scope="module")
def fixture_certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    paths = directory / "certificate.pem", directory / "key.pem"
    curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes".split()
    name = "-subj /CN=manager -addext subjectAltName=IP:127.0.0.1".split()
    files = ["-out", str(paths[0]), "-keyout", str(paths[1])]
    run(["openssl", "req", "-x509", *curve, *name, *files], check=True, capture_output=True)
    return paths


def tls_manager(
    certificate: Path, key: Path, clients: Path | None = None
) -> AbstractContextManager[str]:
    """A Manager that answers one claim a connection; with `clients` it asks who they are."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)

    def answer(connection: socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while stream.readline() != b"\r\n":
                pass
            stream.read(len("{}"))
            connection.sendall(reply({"task": None}, Connection="close"))

    return serving(answer, context)


def test_the_ca_that_is_set_is_the_one_that_is_trusted(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(tmp_path / "missing.pem"))
    with tls_manager(*certificate) as url:
        trusting = replace(access(url), manager_ca_file=certificate[0])
        assert client_with(trusting).claim("key").task is None


def test_the_environment_cannot_make_a_ca_trusted(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(certificate[0]))
    with tls_manager(*certificate) as url:
        with pytest.raises(ManagerUnavailable, match="MANAGER_CA_FILE"):
            client_with(access(url)).claim("key")


def test_the_client_certificate_that_is_set_is_shown(certificate: tuple[Path, Path]) -> None:
    with tls_manager(*certificate, clients=certificate[0]) as url:
        nameless = replace(access(url), manager_ca_file=certificate[0])
        with pytest.raises(ManagerUnavailable):
            client_with(nameless).claim("key")
        file, key = certificate
        named = replace(nameless, manager_cert_file=file, manager_cert_key_file=key)
        assert client_with(named).claim("key").task is None
