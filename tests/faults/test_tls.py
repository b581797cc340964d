"""A real agent and a Manager behind TLS: what it trusts, what it shows, and what it says."""

import os
import shutil
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from socket import create_connection
from urllib.parse import urlsplit

import pytest
import trustme

from tests.support.command import run
from tests.support.faulty_manager import well
from tests.support.harness import Bench, free_port, until
from tests.support.lone_agent import lone_agent
from tests.support.sockets import MakeManager
from tests.support.tls import (
    Authority,
    demanding,
    expired,
    front,
    good,
    outdated,
    unknown_ca,
    wrong_name,
)

# What an administrator may have told OpenSSL to allow.
LAX = """
openssl_conf = lax
[lax]
ssl_conf = sections
[sections]
system_default = weak
[weak]
MinProtocol = TLSv1
CipherString = ALL:@SECLEVEL=0
"""


pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")


@pytest.fixture(name="authority", scope="module")
def fixture_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Two CAs that know nothing of each other."""
    return Authority(trustme.CA(), trustme.CA(), tmp_path_factory.mktemp("authority"))


BAD = [
    pytest.param(wrong_name, "its certificate is for another host", id="wrong name"),
    pytest.param(expired, "its certificate has expired", id="expired"),
    pytest.param(unknown_ca, "set MANAGER_CA_FILE", id="unknown CA"),
    pytest.param(demanding, "see MANAGER_CERT_FILE", id="no client certificate"),
    pytest.param(outdated, "it knows no TLS 1.2 or newer", id="TLS 1.1"),
]


@pytest.mark.parametrize(("context", "words"), BAD)
def test_an_agent_says_what_is_wrong_and_tries_until_it_is_right(
    authority: Authority,
    faulty: MakeManager,
    tmp_path: Path,
    context: Callable[[Authority], ssl.SSLContext],
    words: str,
) -> None:
    manager = faulty(well)
    with front(manager, context(authority)) as tls:
        with lone_agent(tls.url, tmp_path, **authority.trusting) as agent:
            agent.wait_for("not registered yet")
            agent.wait_for("not registered yet")
            first = next(line for line in agent.lines if line["message"] == "not registered yet")
            assert words in first["error"]
            assert manager.requests == []
            tls.change(good(authority))
            agent.wait_for("registered")


@pytest.mark.parametrize(("context", "words"), BAD)
def test_the_check_says_what_is_wrong(
    authority: Authority,
    faulty: MakeManager,
    tmp_path: Path,
    context: Callable[[Authority], ssl.SSLContext],
    words: str,
) -> None:
    settings = {"AGENT_KEY": "key-1", "STATE_DIR": str(tmp_path / "state"), **authority.trusting}
    with front(faulty(well), context(authority)) as tls:
        ended = run("--check", cwd=tmp_path, MANAGER_URL=tls.url, **settings)
        assert ended.code == 69
        assert words in ended.output
        tls.change(good(authority))
        assert run("--check", cwd=tmp_path, MANAGER_URL=tls.url, **settings).code == 0


def test_a_certificate_that_goes_bad_at_work_costs_nothing_but_time(
    authority: Authority, bench: Bench
) -> None:
    with front(bench.manager.url, demanding(authority)) as tls:
        agent = bench.agent(
            number=1, MANAGER_URL=tls.url, HEARTBEAT_INTERVAL="0.2", **authority.known
        )
        agent.wait_for("registered")
        server = bench.ended(bench.task("iperf_server_start", port=(port := free_port())))
        assert server.status == "succeeded", server.error
        test = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=2)
        agent.wait_for("client started")
        tls.change(expired(authority))
        agent.wait_for("no heartbeat; tests go on")
        agent.wait_for("client ended")
        assert test.status in ("accepted", "running")
        tls.change(demanding(authority))
        agent.wait_for("the Manager is back")
        assert bench.ended(test).status == "succeeded", test.error


def test_openssl_itself_cannot_be_told_to_let_the_agent_speak_tls_1_1(
    authority: Authority, faulty: MakeManager, tmp_path: Path
) -> None:
    lax = tmp_path / "openssl.cnf"
    lax.write_text(LAX)
    manager = faulty(well)
    settings = {"OPENSSL_CONF": str(lax), "AGENT_KEY": "key-1", "STATE_DIR": str(tmp_path / "s")}
    with front(manager, outdated(authority)) as tls:
        speak_tls_1_1(tls.url, authority)
        ended = run("--check", cwd=tmp_path, MANAGER_URL=tls.url, **settings, **authority.trusting)
    assert ended.code == 69
    assert "it knows no TLS 1.2 or newer" in ended.output
    assert manager.requests == []


def speak_tls_1_1(url: str, authority: Authority) -> None:
    """Prove that the server and this OpenSSL can, for whoever wants to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.ca.configure_trust(context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    parts = urlsplit(url)
    assert parts.port
    with create_connection(("127.0.0.1", parts.port)) as connection:
        with context.wrap_socket(connection, server_hostname="127.0.0.1") as spoken:
            assert spoken.version() == "TLSv1.1"


def test_no_variable_and_no_netrc_has_a_say_in_what_is_trusted_and_sent(
    authority: Authority, faulty: MakeManager, tmp_path: Path
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login stranger password secret\n")
    netrc.chmod(0o600)
    manager = faulty(well)
    bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    misleading = {"HOME": str(tmp_path), "NETRC": str(netrc)}
    with front(manager, unknown_ca(authority)) as tls:
        settings = {**misleading, **{name: str(authority.stranger_file) for name in bundles}}
        with lone_agent(tls.url, tmp_path, **settings, **authority.trusting) as agent:
            assert "set MANAGER_CA_FILE" in agent.wait_for("not registered yet")["error"]
            assert manager.requests == []
            tls.change(good(authority))
            agent.wait_for("registered")
            manager.wait_for(lambda: {"heartbeat", "claim"} <= set(manager.calls()))
    assert not [request for request in manager.requests if "authorization" in request.headers]


@pytest.mark.parametrize("which", ["ca_file", "own_certificate", "own_key"])
def test_a_file_that_is_read_without_an_end_holds_up_no_signal(
    authority: Authority, faulty: MakeManager, tmp_path: Path, which: str
) -> None:
    """Like a disk that stands still, a pipe without a writer lets OpenSSL wait."""
    path = Path(shutil.copy(getattr(authority, which), tmp_path))
    names = {"ca_file": "MANAGER_CA_FILE", "own_certificate": "MANAGER_CERT_FILE"}
    settings = {**authority.known, names.get(which, "MANAGER_CERT_KEY_FILE"): str(path)}
    # No connection is used again after such a pause, and a new one needs the file.
    settings |= {"HEARTBEAT_INTERVAL": "3", "CLAIM_INTERVAL": "3"}
    with front(faulty(well), demanding(authority)) as tls:
        with lone_agent(tls.url, tmp_path, "--debug", **settings) as agent:
            agent.wait_for("registered")
            path.unlink()
            os.mkfifo(path)
            tls.change(demanding(authority))
            # One on a connection that was closed fails at once.
            until(lambda: any(line.get("milliseconds", 0) > 3900 for line in agent.lines))
            agent.signal(signal.SIGTERM)
            agent.wait_for("agent stops", timeout=3)
            assert agent.exit_code() == 0
