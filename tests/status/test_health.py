"""Health checks, the state as JSON, and who may read them."""

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import AGENT, ROOT, Bench, free_port, iperf3_server, until
from tests.support.lone_agent import lone_agent
from tests.support.status_page import Shown, ask

OPEN = "other hosts can read the status page"


def test_a_working_agent_is_alive_and_ready(shown: Shown) -> None:
    assert ask(shown.url, "/livez").status == 200
    answer = ask(shown.url, "/readyz")
    assert (answer.status, answer.json()) == (200, {"ok": True, "reasons": []})


def test_the_status_has_what_is_running_and_what_was_measured(shown: Shown) -> None:
    # The Manager may have a result before the agent has its answer.
    until(lambda: ask(shown.url, "/status").json()["outbox_messages"] == 0)
    status = ask(shown.url, "/status").json()
    assert (status["name"], status["agent_id"], status["not_ready"]) == ("a1", 1, [])
    assert status["manager_url"] == shown.bench.manager.url
    (server,) = status["running"]
    assert (server["type"], server["port"]) == ("iperf_server_start", shown.port)
    assert status["outbox_messages"] == status["rejected"] == 0
    assert status["resident"] > 10**7 and status["cpu_seconds"] > 0
    clients = [result for result in status["results"] if result["type"] == "iperf_client_run"]
    failed, udp, tcp = clients
    assert (failed["status"], failed["error_class"]) == ("failed", "refused")
    assert "Connection refused" in failed["message"]
    assert udp["figures"]["sent"] == pytest.approx(10**7, rel=0.3)
    assert udp["figures"]["lost_percent"] >= 0
    assert tcp["figures"]["received"] > 10**6
    assert len(tcp["figures"]["rates"]) >= 9
    served = [result for result in status["results"] if result["type"] == "iperf_server_start"]
    assert served[-1]["figures"]["received"] > 10**6, "the server's own view of the first test"


def keys(value: Any, place: str = "") -> Iterator[str]:
    """All keys of the JSON; those of rows follow the name of their list and a dot."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield place + name
            yield from keys(item, f"{place}{name}.")
    elif isinstance(value, list):
        for item in value:
            yield from keys(item, place)


def test_the_documented_keys_are_those_of_the_status(shown: Shown) -> None:
    text = (ROOT / "docs/operations.md").read_text().partition("| key |")[2].partition("\n\n")[0]
    documented = re.findall(r"`([\w.]+)`", " ".join(re.findall(r"^\| (`.*?) \|", text, re.M)))
    assert len(documented) == len(set(documented))
    # They are left out if only the client sent, and one stream, as in all tests here.
    left_out = {f"results.figures.{name}" for name in ("direction", "backward", "streams")}
    found = left_out | {*keys(ask(shown.url, "/status").json())}
    assert found == set(documented)


@pytest.mark.process
def test_an_unregistered_agent_is_alive_but_not_ready(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    address = f"127.0.0.1:{port}"
    with lone_agent("http://127.0.0.1:1", tmp_path, STATUS_ADDRESS=address) as agent:
        agent.wait_for("not registered yet")
        assert ask(url, "/livez").status == 200
        answer = ask(url, "/readyz")
        assert answer.status == 503
        assert answer.json() == {"ok": False, "reasons": ["not registered with the Manager yet"]}
        assert b"not registered with the Manager yet" in ask(url, "/").body
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0


def test_a_missing_iperf3_and_a_silent_manager_are_reported(bench: Bench) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    bench.agent(STATUS_ADDRESS=f"127.0.0.1:{port}", IPERF3_PATH="/nowhere/iperf3").wait_for(
        "registered"
    )
    until(lambda: ask(url, "/status").json()["heard_ago"] is not None)
    assert ask(url, "/readyz").json()["reasons"] == [
        "no usable iperf3: install it or set IPERF3_PATH"
    ]
    bench.manager.stop()
    until(lambda: len(ask(url, "/readyz").json()["reasons"]) == 2)
    assert "no heartbeat was answered for 15 s" in ask(url, "/readyz").json()["reasons"]


def test_a_manager_that_does_not_answer_a_heartbeat_is_silent_at_once(bench: Bench) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    agent = bench.agent(STATUS_ADDRESS=f"127.0.0.1:{port}", HEARTBEAT_INTERVAL="0.5")
    agent.wait_for("registered")
    until(lambda: b"Connected." in ask(url, "/").body)
    bench.manager.stop()
    until(lambda: b"The Manager is silent." in ask(url, "/").body)
    assert ask(url, "/readyz").status == 200, "three heartbeats make it offline, and one does not"


def answers(port: int) -> bool:
    """Whether the status page at the port answers that its agent is alive."""
    with suppress(TimeoutError):
        return ask(f"http://127.0.0.1:{port}", "/livez").status == 200
    return False


def test_many_idle_connections_do_not_prevent_a_test(bench: Bench) -> None:
    """Of 120 descriptors, idle connections get 32 at most, and one too many ends the oldest."""
    few = ("prlimit", "--nofile=120:120", *AGENT)
    agent = bench.agent(program=few, STATUS_ADDRESS=f"127.0.0.1:{(page := free_port())}")
    agent.wait_for("status page")
    agent.wait_for("registered")
    with ExitStack() as stack:
        stack.enter_context(iperf3_server(port := free_port()))
        for _ in range(120):
            stack.enter_context(socket.create_connection(("127.0.0.1", page)))
        task = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, bytes=10**6)
        assert bench.ended(task).status == "succeeded", task.error
        until(lambda: answers(page))
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0


@pytest.mark.parametrize(
    ("host", "is_open"),
    [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True), ("[::]", True)],
)
def test_a_page_that_other_hosts_can_read_is_told_at_the_start(
    bench: Bench, host: str, is_open: bool
) -> None:
    agent = bench.agent(STATUS_ADDRESS=(place := f"{host}:{free_port()}"))
    agent.wait_for("status page", url=f"http://{place}/")
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    said = [line for line in agent.lines if line["message"] == OPEN]
    assert [(line["level"], line["address"]) for line in said] == [("warning", place)] * is_open
    assert all("no secrets" in line["shown"] for line in said)


def test_the_page_opens_at_the_url_that_the_start_tells(bench: Bench) -> None:
    """Like a host's own name that is loopback in /etc/hosts, this is none of the usual names."""
    agent = bench.agent(STATUS_ADDRESS=f"127.1:{free_port()}")
    url = agent.wait_for("status page")["url"].rstrip("/")
    assert ask(url, "/livez").status == 200
    assert ask(url, "/livez", Host="evil.example").status == 403


def test_a_port_in_use_is_only_a_warning(shown: Shown, tmp_path: Path) -> None:
    taken = shown.url.removeprefix("http://")
    manager = shown.bench.manager.url
    with lone_agent(
        manager, tmp_path, AGENT_NAME="a2", AGENT_KEY="key-2", STATUS_ADDRESS=taken
    ) as agent:
        said = agent.wait_for("no status page", level="warning")
        assert said["address"] == taken
        assert "another STATUS_ADDRESS" in said["advice"]
        agent.wait_for("registered")


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:9201", "127.0.0.2:80"])
def test_the_usual_names_of_loopback_are_accepted(shown: Shown, host: str) -> None:
    assert ask(shown.url, "/status", Host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9201", "10.0.0.1", "localhost.evil"]
)
def test_another_name_that_points_here_is_refused(shown: Shown, host: str) -> None:
    answer = ask(shown.url, "/status", Host=host)
    assert answer.status == 403
    assert b"a1" not in answer.body


def test_the_page_is_read_only_and_hidden_from_other_pages(shown: Shown) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = ask(shown.url, "/", method, Origin="http://evil.example")
        assert answer.status == 405
        assert answer.headers["allow"] == "GET, HEAD"
        assert not [name for name in answer.headers if name.startswith("access-control")]
    head = ask(shown.url, "/status", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) > 100
    assert ask(shown.url, "/nothing").status == 404
    assert "default-src 'none'" in ask(shown.url, "/").headers["content-security-policy"]


def test_nothing_shows_the_key(shown: Shown) -> None:
    for path in ("/", "/status", "/metrics", "/readyz", "/livez"):
        assert b"key-1" not in ask(shown.url, path).body
