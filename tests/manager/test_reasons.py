"""Why a call failed, in plain words: real failures, with and without a proxy in between."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import socket

import pytest
import trustme

from agent.errors import ManagerUnavailable
from agent.manager.reasons import why
from agent.manager.transport import Transport
from agent.metrics import Metrics
from tests.support import tls
from tests.support.faulty_manager import raw_reply, reply
from tests.support.harness import Bench
from tests.support.lone_agent import lone_agent
from tests.support.proxy import page, proxy
from tests.support.sockets import MakeManager, access, client_with, reset, serving

pytestmark = pytest.mark.process

SECRET = "s3cr3t-word"
# What only a library or the kernel would say.
FOREIGN = ("Errno", "Error(", "_Connection", "HTTPConnectionPool", "Max retries", "[SSL", "_ssl.c")
FAR = "manager.invalid"
How = dict[str, str | bytes | bool]


@pytest.fixture(autouse=True)
def fixture_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine's own proxy have no say."""
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


def said_of(url: str, ca_file: Path | None = None, deadline: float = 10) -> str:
    """What an agent says of a claim at that URL, which fails."""
    settings = replace(access(url), manager_ca_file=ca_file)
    with pytest.raises(ManagerUnavailable) as raised:
        Transport(settings, Metrics()).call("/claim", b"{}", {}, deadline)
    said = str(raised.value)
    assert not [word for word in FOREIGN if word in said], said
    assert SECRET not in said
    return said.removeprefix("/claim: ")


@contextmanager
def nobody() -> Iterator[str]:
    """HOST:PORT where nobody listens."""
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def saying(words: bytes) -> AbstractContextManager[str]:
    """The URL of a server that says this and ends."""

    def say(connection: socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(words)

    return serving(say)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (b"", "the Manager ended the connection: it is starting, or MANAGER_URL must"),
        (
            b"\x15\x03\x01\0\x02\x02\x50",
            "the Manager speaks no HTTP: check the port in MANAGER_URL, or whether",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the Manager speaks no HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
            "the answer of the Manager was cut short",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno", "was cut short"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nno",
            "the answer of the Manager cannot be read",
        ),
    ],
)
def test_what_is_no_whole_answer_of_http_is_told(words: bytes, said: str) -> None:
    with saying(words) as url:
        assert said in said_of(url)


def test_nobody_who_listens_no_name_and_no_route_are_told() -> None:
    with nobody() as place:
        assert said_of(f"http://{place}").startswith(
            "the Manager refuses the connection: it does not"
        )
    assert "the name of the Manager" in said_of(f"http://{FAR}:8000")
    assert "the Manager has a name or a user that cannot be sent: check MANAGER_URL" in said_of(
        f"http://{'a' * 64}:8000"
    )
    assert "needs a zone: [fe80::1%25eth0]" in said_of("http://[fe80::1]:8000")
    assert "the name of the Manager is not known: check MANAGER_URL" in said_of("http://no.invalid")
    for zone in ("%25none", "%none"):
        said = "this host has no interface none, which MANAGER_URL names: check it"
        assert said in said_of(f"http://[fe80::1{zone}]:8000")


def test_a_reset_is_told_as_an_end() -> None:
    with serving(reset) as url:
        assert said_of(url).startswith("the Manager ended the connection")


def wait(connection: socket) -> None:
    """Say nothing for as long as the other side is there."""
    while connection.recv(65536):
        pass


def hang_up(connection: socket) -> None:
    """Read something, and reset the connection."""
    connection.recv(65536)
    reset(connection)


def test_a_silent_manager_is_told() -> None:
    with serving(wait) as url:
        assert said_of(url, deadline=0.3) == "no answer within 0.3 s from the Manager"


def test_a_word_of_our_own_is_told_as_it_is(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("nothing")
    assert said_of("https://127.0.0.1:1", broken).startswith("MANAGER_CA_FILE")


def test_an_error_that_nobody_foresaw_is_told_by_the_kernels_words_or_its_name() -> None:
    assert why(OSError(92, "x"), "http://m") == (
        "the call to the Manager failed: Protocol not available"
    )
    assert why(KeyError("x"), "http://m") == "the call to the Manager failed: KeyError"


@pytest.fixture(name="authority", scope="module")
def fixture_authority() -> trustme.CA:
    """A CA."""
    return trustme.CA()


@pytest.fixture(name="trusted", scope="module")
def fixture_trusted(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its certificate in a file."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def secure(certificate: trustme.LeafCert, answers: bool = True) -> AbstractContextManager[str]:
    """The URL of a Manager without tasks that speaks TLS, or that hangs up."""

    def answer(connection: socket) -> None:
        with connection:
            told = b""
            while b"{}" not in told and (piece := connection.recv(65536)):
                told += piece
            if answers:
                connection.sendall(reply({"task": None}, Connection="close"))

    return serving(answer, tls.serving(certificate))


@contextmanager
def refused_tunnel() -> Iterator[str]:
    """A proxy that hangs up when it is asked for a tunnel."""
    with serving(hang_up) as url:
        yield url.removeprefix("http://")


@contextmanager
def full() -> Iterator[str]:
    """HOST:PORT where the kernel drops whoever wants to connect."""
    with socket() as listening, socket() as first, socket() as second:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(listening.getsockname())
        yield f"127.0.0.1:{listening.getsockname()[1]}"


WANTS = "wants {} in its URL, as in http://USER:PASSWORD@HOST:PORT"
A_LOGIN, ANOTHER = (
    WANTS.format(each) for each in ("a user and a password", "another user and password than those")
)
BAD_PROXIES: list[tuple[How, str, str]] = [
    ({"login": "user:right"}, "", A_LOGIN),
    ({"login": "user:right"}, f"user:{SECRET}@", ANOTHER),
    (
        {"refusal": page(403)},
        f"user:{SECRET}@",
        "does not allow THAT: allow it there, or set NO_PROXY",
    ),
    ({"refusal": page(405)}, "", "does not allow THAT"),
    ({"refusal": page(500)}, "", "does not reach THAT: check that URL, and the proxy's log"),
    ({"refusal": page(502)}, "", "does not reach THAT"),
    ({"refusal": page(503)}, f"user:{SECRET}@", "does not reach THAT"),
    ({"refusal": raw_reply(b"no healthy upstream", 503)}, "", "does not reach THAT"),
    ({"refusal": b"SSH-2.0-OpenSSH_9.2\r\n"}, "", "speaks no HTTP"),
]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("how", "login", "words"), BAD_PROXIES)
def test_what_a_proxy_answers_is_told_from_what_the_manager_does(
    monkeypatch: pytest.MonkeyPatch, how: How, login: str, words: str, scheme: str
) -> None:
    url = f"{scheme}://{FAR}:8000"
    with proxy("http://127.0.0.1:1", **how) as way:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://{login}{way.host}")
        said = said_of(url)
    shown = f"http://{'[hidden]@' if login else ''}{way.host}"
    assert f"the proxy {shown} {words.replace('THAT', url)}" in said
    assert way.asked == [f"{FAR}:8000"]


def test_a_page_of_a_proxys_is_no_answer_of_a_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy("http://127.0.0.1:1", refusal=page(200)) as way:
        monkeypatch.setenv("http_proxy", f"http://user:{SECRET}@{way.host}")
        with pytest.raises(ManagerUnavailable) as raised:
            client_with(access(f"http://{FAR}:8000")).claim("key")
    shown = f"most likely the proxy http://[hidden]@{way.host} does not allow http://{FAR}:8000"
    assert f"the answer is not the Manager's, but HTML: {shown}" in str(raised.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("dead", "words"),
    [
        (nobody, "the proxy PROXY refuses the connection: it does not run"),
        (full, "the proxy PROXY does not answer: it is down, a firewall drops"),
        (refused_tunnel, "the proxy PROXY ended the connection"),
        (lambda: nullcontext("proxy.invalid:3128"), "the name of the proxy PROXY"),
    ],
)
def test_a_dead_proxy_is_told_from_a_dead_manager(
    monkeypatch: pytest.MonkeyPatch,
    dead: Callable[[], AbstractContextManager[str]],
    words: str,
    scheme: str,
) -> None:
    with dead() as place:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://user:{SECRET}@{place}")
        said = said_of(f"{scheme}://{FAR}", deadline=4)
    assert words.replace("PROXY", f"http://[hidden]@{place}") in said


def test_a_silent_way_names_both_who_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy("http://127.0.0.1:1", silent=True) as way:
        monkeypatch.setenv("http_proxy", way.url)
        said = said_of(f"http://{FAR}", deadline=0.5)
    assert said.endswith(f"within 0.5 s from the proxy {way.url}, or the Manager behind it")


def test_https_to_a_proxy_that_speaks_http_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy("http://127.0.0.1:1") as way:
        monkeypatch.setenv("https_proxy", f"https://{way.host}")
        said = said_of(f"https://{FAR}")
    assert said.startswith(f"the proxy https://{way.host}: no TLS is spoken there: write http://")
    assert "MANAGER_URL" not in said


def test_what_the_manager_says_is_not_blamed_on_the_proxy(
    faulty: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = faulty(lambda _: reply({"detail": {"error": "no_such_call"}}, 404))
    with proxy(manager.url) as way:
        monkeypatch.setenv("http_proxy", way.url)
        assert said_of(f"http://{FAR}:8000") == "404 no_such_call"
        manager.answer = lambda _: raw_reply(b"<p>no such page", 404)
        # A proxy says with other statuses what it does not allow.
        assert "proxy" not in said_of(f"http://{FAR}:8000")
        manager.answer = lambda _: raw_reply(b"Internal Server Error", 500)
        assert said_of(f"http://{FAR}:8000") == "500"
    assert set(way.asked) == {f"{FAR}:8000"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("manager.example", ""),
        ("other.example", "the Manager: its certificate is for another host"),
        ("expired.example", "the Manager: its certificate has expired"),
    ],
)
def test_tls_through_a_proxy_is_the_managers(
    authority: trustme.CA,
    trusted: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    words: str,
) -> None:
    until = datetime.now(UTC) + timedelta(hours=-1 if name == "expired.example" else 1)
    issued = authority.issue_cert(name, not_after=until)
    called = "manager.example" if name == "other.example" else name
    with secure(issued) as manager, proxy(manager, login=f"user:{SECRET}") as way:
        monkeypatch.setenv("https_proxy", way.url)
        url = f"https://{called}"
        if words:
            assert said_of(url, trusted).startswith(words)
        else:
            client_with(replace(access(url), manager_ca_file=trusted)).claim("key")
            assert said_of(url).startswith("the Manager: its certificate is of a CA")
    assert set(way.asked) == {f"{called}:443"}


def test_a_manager_that_hangs_up_is_not_blamed_on_the_proxy(
    authority: trustme.CA, trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = authority.issue_cert("manager.example")
    with secure(issued, answers=False) as manager, proxy(manager) as way:
        monkeypatch.setenv("https_proxy", way.url)
        said = said_of("https://manager.example", trusted)
    assert said.startswith("the Manager ended the connection")
    assert said.endswith("or MANAGER_URL must not begin with https")


@pytest.mark.parametrize("login", ["user:right", f"user:{SECRET}"])
def test_no_password_of_a_proxy_is_in_the_log(bench: Bench, tmp_path: Path, login: str) -> None:
    with proxy(bench.manager.url, login=f"user:{SECRET}") as way:
        url = f"http://{login}@{way.host}"
        with lone_agent(
            f"http://{FAR}:8000", tmp_path, "--debug", REGISTER_TIMEOUT="1", HTTP_PROXY=url
        ) as agent:
            if SECRET in login:
                agent.wait_for("registered")
            else:
                assert agent.exit_code() == 69
                assert ANOTHER in agent.wait_for("agent ends")["error"]
    assert SECRET not in str(agent.lines) and "right" not in str(agent.lines)
