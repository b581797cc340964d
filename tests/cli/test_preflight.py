"""`agent-run --check` on hosts that are broken in many ways, and on one whose agent runs."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from gevent import subprocess
from gevent.server import StreamServer

from agent.host import local_address
from tests.support.checking import check, marks, said
from tests.support.command import NO_MANAGER, run
from tests.support.faulty_manager import raw_reply, reply, well
from tests.support.harness import Bench, free_port
from tests.support.proxy import Proxy, page
from tests.support.sockets import MakeManager
from tests.support.tls import Authority, demanding, expired, front, good, unknown_ca, wrong_name

pytestmark = pytest.mark.process

FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
# The first words of what --version says, and an option of --help that came later.
IPERF3 = [
    ("3.9", False, ["no live rates", "one thread for all", "see no loss", "with a burst"]),
    ("3.12", False, ["no live rates", "one thread for all", "see no loss"]),
    ("3.14", False, ["no live rates", "one thread for all"]),
    ("3.16", False, ["no live rates", "a thread for each stream"]),
    ("3.17.1", True, [": live rates", "a thread for each stream"]),
    ("3.18", True, [": live rates", "a thread for each stream", "with a burst"]),
    ("3.19.1", True, [": live rates", "a thread for each stream"]),
]


@pytest.fixture(name="authority", scope="module")
def fixture_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Two CAs that know nothing of each other."""
    return Authority(trustme.CA(), trustme.CA(), tmp_path_factory.mktemp("authority"))


@contextmanager
def listener() -> Iterator[int]:
    """The port of a process that listens there and does nothing else."""
    server = StreamServer(("127.0.0.1", free_port()), lambda connection, _: connection.close())
    server.start()
    try:
        yield server.server_port
    finally:
        server.stop()


def test_a_status_port_that_another_program_has(bench: Bench) -> None:
    with listener() as port:
        ended = check(bench.directory, bench.manager.url, STATUS_ADDRESS=f"127.0.0.1:{port}")
    assert ended.code == 78
    assert f"not ok: STATUS_ADDRESS 127.0.0.1:{port}: " in said(ended, "status page")
    assert "listens there: choose a free port" in said(ended, "status page")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("192.0.2.7:9201", "Cannot assign requested address"),
        ("no.invalid:9201", "Name or service not known"),
    ],
)
def test_a_status_address_that_is_not_this_hosts(bench: Bench, address: str, words: str) -> None:
    ended = check(bench.directory, bench.manager.url, STATUS_ADDRESS=address)
    assert ended.code == 78
    assert words in said(ended, "status page") and address in said(ended, "status page")


@pytest.mark.parametrize(
    ("address", "mark"),
    # The second means loopback as well, like a host's own name in /etc/hosts on Debian.
    [("127.0.0.1", "ok"), ("127.1", "ok"), ("[::1]", "ok"), ("0.0.0.0", "warning")],
)
def test_a_page_that_is_open_to_the_world_is_told(bench: Bench, address: str, mark: str) -> None:
    where = f"{address}:{free_port()}"
    ended = check(bench.directory, bench.manager.url, STATUS_ADDRESS=where)
    assert ended.code == 0, "it may be meant so"
    assert said(ended, "status page").startswith(f"{mark}: http://{where}/")
    assert ("all who reach this host" in said(ended, "status page")) is (mark == "warning")


def test_a_check_beside_the_agents_own_service_finds_all_well(bench: Bench) -> None:
    port, lock = free_port(), bench.directory / "state-1" / "lock"
    lock.parent.mkdir(mode=0o700)
    lock.write_text("1234567890 an-agent-that-was-killed\n")
    agent = bench.agent(STATUS_ADDRESS=f"127.0.0.1:{port}")
    agent.wait_for("status page")
    state = str(bench.directory / "state-1")
    settings = {"STATE_DIR": state, "STATUS_ADDRESS": f"127.0.0.1:{port}"}
    ended = check(bench.directory, bench.manager.url, **settings)
    assert ended.code == 0, ended.output
    assert said(ended, "state directory") == f"ok: {state}, in use by pid {agent.pid}"
    assert said(ended, "status page") == f"ok: http://127.0.0.1:{port}/, in use by pid {agent.pid}"
    bench.ends_well(agent)
    ended = check(bench.directory, bench.manager.url, **settings)
    assert "in use" not in ended.output


def test_a_status_port_that_another_program_has_while_the_agent_runs(bench: Bench) -> None:
    agent = bench.agent()
    agent.wait_for("registered")
    settings = {"STATE_DIR": str(bench.directory / "state-1")}
    with listener() as port:
        where = f"127.0.0.1:{port}"
        ended = check(bench.directory, bench.manager.url, STATUS_ADDRESS=where, **settings)
    assert ended.code == 78
    assert f"pid {agent.pid}" in said(ended, "state directory")
    assert f"(pid {os.getpid()}) listens there" in said(ended, "status page")


def test_a_state_directory_of_another_agent(bench: Bench) -> None:
    agent = bench.agent(number=2, STATE_DIR=str(bench.directory / "shared"))
    agent.wait_for("registered")
    shared = bench.directory / "shared"
    ended = check(bench.directory, bench.manager.url, STATE_DIR=str(shared))
    assert ended.code == 78
    words = f"{shared} is in use by pid {agent.pid}, the agent a2: set another STATE_DIR"
    assert said(ended, "state directory") == f"not ok: {words}"


def test_a_state_directory_whose_lock_is_no_file(bench: Bench) -> None:
    (bench.directory / "state" / "lock").mkdir(parents=True)
    ended = check(bench.directory, bench.manager.url)
    assert ended.code == 78
    assert "state/lock: Is a directory: make it a file" in said(ended, "state directory")
    assert "Errno" not in ended.output


def test_an_address_that_is_not_this_hosts_may_be_a_nats(bench: Bench) -> None:
    ended = check(bench.directory, bench.manager.url, ADVERTISE_ADDRESS="192.0.2.7")
    assert ended.code == 0
    assert said(ended, "address").startswith("warning: the Manager is told 192.0.2.7, which is no")
    assert "NAT" in said(ended, "address")
    own = local_address("http://192.0.2.7")
    ended = check(bench.directory, bench.manager.url, ADVERTISE_ADDRESS=own)
    assert said(ended, "address") == f"ok: the Manager is told {own}"


@pytest.mark.parametrize(
    ("variable", "content", "words"),
    [
        ("MANAGER_CA_FILE", "", "it must have a certificate in PEM"),
        ("MANAGER_CA_FILE", "key", "it must have a certificate in PEM"),
        ("MANAGER_CERT_FILE", "key", "it must have a certificate in PEM"),
        ("MANAGER_CERT_KEY_FILE", "other", "it must have the key of MANAGER_CERT_FILE"),
        ("MANAGER_CERT_KEY_FILE", "locked", "without a passphrase"),
    ],
)
def test_a_file_of_tls_that_does_not_load_exits_78(
    authority: Authority, bench: Bench, variable: str, content: str, words: str
) -> None:
    path = bench.directory / "file.pem"
    if content == "key":
        shutil.copy(authority.own_key, path)
    elif content == "other":
        authority.stranger.issue_cert("agent.example").private_key_pem.write_to_path(path)
    elif content == "locked":
        asked = ["openssl", "pkcs8", "-topk8", "-in", str(authority.own_key), "-out", str(path)]
        subprocess.run([*asked, "-passout", "pass:abcd"], check=True)
    else:
        path.write_text(content)
    with front(bench.manager.url, good(authority)) as tls:
        settings = {**authority.known, variable: str(path)}
        ended = check(bench.directory, tls.url, **settings)
    assert ended.code == 78
    assert said(ended, "TLS").startswith(f"not ok: {variable} {path} cannot be used: ")
    assert words in said(ended, "TLS")
    assert "_ssl.c" not in ended.output


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (unknown_ca, "a CA that this host does not trust: set MANAGER_CA_FILE"),
        (wrong_name, "is for another host: MANAGER_URL must have the name in it"),
        (expired, "has expired, or this host's clock is wrong"),
        (demanding, "see MANAGER_CERT_FILE"),
    ],
)
def test_a_manager_whose_tls_is_refused(
    authority: Authority, bench: Bench, context: object, words: str
) -> None:
    assert callable(context)
    with front(bench.manager.url, context(authority)) as tls:
        ended = check(bench.directory, tls.url, **authority.trusting)
    assert ended.code == 69
    assert words in said(ended, "Manager")
    assert "_ssl.c" not in ended.output and "SSL:" not in ended.output


def test_https_against_an_http_port_and_http_against_an_https_port(
    authority: Authority, bench: Bench
) -> None:
    ended = check(bench.directory, bench.manager.url.replace("http:", "https:"))
    assert ended.code == 69
    assert "no TLS is spoken there: write http:// in MANAGER_URL" in said(ended, "Manager")
    with front(bench.manager.url, good(authority)) as tls:
        ended = check(bench.directory, tls.url.replace("https:", "http:"))
    assert ended.code == 69
    assert "the port speaks https: write https:// in MANAGER_URL" in said(ended, "Manager")


def test_a_proxy_that_answers_http_on_its_https_port(
    authority: Authority, faulty: MakeManager, tmp_path: Path
) -> None:
    """As nginx does. A 400 of a port without TLS is what it is."""
    plain = faulty(lambda _: raw_reply(b"<html>plain", 400, Content_Type="text/html"))
    assert "got 400 with HTML: is this a Manager?" in said(check(tmp_path, plain.url), "Manager")


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/agent"])
def test_a_url_that_ends_in_v1(bench: Bench, path: str) -> None:
    ended = check(bench.directory, bench.manager.url + path)
    assert ended.code == 69
    assert "MANAGER_URL must end before /v1, which the agent adds" in said(ended, "Manager")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (raw_reply(b"<p>", 404, Content_Type="text/html; charset=x"), "404 with HTML: is this a"),
        (reply({"ok": 1}), "200 with JSON: is this a Manager?"),
        (raw_reply(b"hello"), "200 with no content type: is this a Manager?"),
        (
            raw_reply(b"", 301, Location="https://m.example/"),
            "it leads to https://m.example/: MANA",
        ),
        (
            raw_reply(b"<p>", 502, Content_Type="text/html"),
            "502 with HTML: the Manager has a fault",
        ),
    ],
)
def test_a_url_that_leads_to_no_manager(
    faulty: MakeManager, tmp_path: Path, answer: bytes, words: str
) -> None:
    stranger = faulty(lambda _: answer)
    ended = check(tmp_path, stranger.url, "--try-key")
    assert ended.code == 69
    assert said(ended, "Manager").startswith(f"not ok: asked {stranger.url}/healthz, got ")
    assert words in said(ended, "Manager")
    assert [request.path for request in stranger.requests] == ["/healthz"], "nobody gets the key"


@pytest.mark.skipif(sys.platform != "linux" or not FAKETIME, reason="needs libfaketime")
@pytest.mark.parametrize(("moved", "words"), [("-1h", "behind"), ("+600", "ahead of")])
def test_a_clock_that_is_wrong_is_told(bench: Bench, moved: str, words: str) -> None:
    settings = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": moved, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    ended = check(bench.directory, bench.manager.url, **settings)
    assert ended.code == 0
    assert marks(ended)["clock"] == "warning"
    assert f"s {words} the Manager's" in said(ended, "clock")
    seconds = int(said(ended, "clock").split()[1])
    assert abs(seconds - (3600 if moved == "-1h" else 600)) < 30


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Nov 2026 99:00:00 GMT"])
def test_a_manager_without_a_date_says_nothing_of_the_clock(
    faulty: MakeManager, tmp_path: Path, date: str
) -> None:
    manager = faulty(lambda _: reply({"ok": True}, Date=date))
    ended = check(tmp_path, manager.url)
    assert (ended.code, "clock" in ended.output) == (0, False)


@pytest.mark.parametrize(("version", "streams", "words"), IPERF3)
def test_what_an_iperf3_can_do_is_one_line(
    tmp_path: Path, version: str, streams: bool, words: list[str]
) -> None:
    path = tmp_path / "iperf3"
    new = "echo '  --json-stream  x'" if streams else ":"
    path.write_text(
        f'#!/bin/sh\ncase "$1" in --version) echo "iperf {version} (cJSON 1.7.15)";;\n'
        f"*) iperf3 --help | grep -v json-stream; {new};; esac\n"
    )
    path.chmod(0o755)
    line = said(check(tmp_path, NO_MANAGER, IPERF3_PATH=str(path)), "iperf3")
    assert line.startswith(f"ok: {version} at {path}: ")
    for each in words:
        assert each in line
    assert line.count("known fault") == len({"see no loss", "with a burst"} & set(words))


def test_try_key_registers_and_a_plain_check_does_not(bench: Bench) -> None:
    assert check(bench.directory, bench.manager.url).code == 0
    assert bench.store.agents.get(1).last_heartbeat is None
    ended = check(bench.directory, bench.manager.url, "--try-key", AGENT_KEY="key-1")
    assert ended.code == 0
    assert said(ended, "key") == "ok: the Manager has registered this host as agent 1"
    assert bench.store.agents.get(1).last_heartbeat
    assert list(bench.directory.iterdir()) == []


def test_a_key_that_is_refused_exits_as_a_run_does(bench: Bench) -> None:
    ended = check(bench.directory, bench.manager.url, "--try-key", LOG_FORMAT="json")
    assert ended.code == 77
    found = [json.loads(line) for line in ended.output.splitlines()][-1]
    assert (found["check"], found["ok"], found["fault"]) == ("key", False, "key")
    assert "401 invalid_agent_key: compare AGENT_NAME, the key and" in found["message"]
    ended = check(bench.directory, bench.manager.url, "--try-key", AGENT_NAME="nobody")
    assert ended.code == 67
    assert "create AGENT_NAME at the Manager, or enable it there" in said(ended, "key")


def test_a_registration_without_an_answer_of_the_managers_exits_69(
    faulty: MakeManager, tmp_path: Path
) -> None:
    manager = faulty(lambda request: well(request) if request.method == "GET" else b"")
    ended = check(tmp_path, manager.url, "--try-key")
    assert ended.code == 69
    assert marks(ended)["key"] == "not ok"


def test_a_key_is_tried_only_by_a_check_and_with_settings_that_are_right(bench: Bench) -> None:
    ended = run("--try-key", cwd=bench.directory)
    assert (ended.code, ended.output) == (78, "")
    assert "--try-key needs --check" in ended.errors
    ended = check(bench.directory, bench.manager.url, "--try-key", MAX_TASKS="many")
    assert ended.code == 78
    assert "key" not in marks(ended)


def test_a_check_through_a_proxy_names_it_and_the_address_that_is_of_no_use(bench: Bench) -> None:
    proxy = Proxy(bench.manager.url, login="me:canary-pw")
    settings = {"HTTP_PROXY": proxy.url, "AGENT_KEY": "key-1"}
    ended = check(bench.directory, "http://manager.invalid", "--try-key", **settings)
    words = f"the Manager is asked through http://[hidden]@{proxy.host}"
    assert said(ended, "proxy") == f"ok: {words}"
    assert said(ended, "Manager") == "ok: http://manager.invalid answers"
    assert said(ended, "address").startswith("not ok: the Manager is told 127.0.0.1; ")
    assert "set ADVERTISE_ADDRESS" in said(ended, "address")
    assert ended.code == 78
    settings["ADVERTISE_ADDRESS"] = local_address("http://192.0.2.7")
    ended = check(bench.directory, "http://manager.invalid", "--try-key", **settings)
    assert (ended.code, marks(ended)["key"]) == (0, "ok")
    assert "canary-pw" not in ended.output
    proxy.stop()


def test_a_proxy_that_is_none_exits_78(tmp_path: Path) -> None:
    ended = check(tmp_path, "http://manager.invalid", HTTP_PROXY="socks5://me:canary-pw@p:1")
    assert ended.code == 78
    assert "must be like http://proxy.example:3128" in said(ended, "proxy")
    assert "canary-pw" not in ended.output


@pytest.mark.parametrize(
    ("status", "words"), [(407, "wants a user and a password"), (403, "does not allow http://man")]
)
def test_a_page_of_the_proxys_is_not_taken_for_the_managers(
    bench: Bench, status: int, words: str
) -> None:
    proxy = Proxy(bench.manager.url, refusal=page(status))
    ended = check(bench.directory, "http://manager.invalid", HTTP_PROXY=proxy.url)
    told = said(ended, "Manager")
    assert told.startswith(f"not ok: asked http://manager.invalid/healthz, got {status} with HTML:")
    assert f"the proxy {proxy.url} {words}" in told
    proxy.stop()
