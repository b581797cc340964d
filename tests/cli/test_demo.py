"""`agent-run --dev` as a process: the demo, and the ways in which it can fail."""

import errno
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from agent.cli import demo
from tests.support.command import run, stand_in
from tests.support.dev_client import DEADLINE_SECONDS, Api
from tests.support.harness import ROOT, AgentProcess, Bench, is_running
from tests.support.recorded_runs import run as recorded

pytestmark = pytest.mark.process

FIRST_PORT = 8000


def texts(agent: AgentProcess) -> list[str]:
    """The lines that it printed besides its log."""
    return [line for line in agent.lines if isinstance(line, str)]


def children(agent: AgentProcess) -> list[int]:
    """The pids of the children that its log names."""
    started = ("server started", "client started")
    logged: list[dict[str, Any]] = [line for line in agent.lines if isinstance(line, dict)]
    return [line["pid"] for line in logged if line["message"] in started]


@contextmanager
def port_taken(port: int) -> Iterator[None]:
    """While this lasts, the port on loopback is in use, by this test or another program."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError:
            pass
        yield


def test_a_host_without_ipv6_has_free_ports_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    class OfAnotherHost(socket.socket):
        def __init__(self, family: int = -1, *rest: Any, **keys: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *rest, **keys)

    monkeypatch.setattr(socket, "socket", OfAnotherHost)
    assert demo._free_port() > 0


def test_a_summary_says_no_retransmits_that_nobody_counted() -> None:
    edited = msgspec.json.decode(recorded("3.12", "tcp").stdout)
    assert "retransmits" in demo._summary(msgspec.json.encode(edited), b"{}")
    del edited["end"]["sum_sent"]["retransmits"]
    assert "retransmits" not in demo._summary(msgspec.json.encode(edited), b"{}")


@pytest.mark.slow
def test_the_demo_measures_loopback_prints_a_summary_and_cleans_up(bench: Bench) -> None:
    agent = bench.agent("--dev", "--exit-after-idle", "0.5", LOG_FORMAT="json")
    assert agent.exit_code() == 0, agent.lines
    assert [line.split(" ")[0] for line in texts(agent) if line.startswith("TCP over")] == ["TCP"]
    summary = "\n".join(texts(agent))
    assert re.search(r"client   sent \d[\d.]* [GM]bit/s, \d+ retransmits, CPU \d+ %", summary)
    assert re.search(r"server   received \d[\d.]* [GM]bit/s, CPU \d+ %", summary)
    assert re.search(r"server's own report: \d[\d.]* [GM]bit/s", summary)
    assert re.search(r"server's own report: .*\n  [A-Z].* [GM]bit/s.*\.\n  The dev", summary)
    assert "Traceback" not in summary
    assert re.search(r"The dev Manager is at http://\S+ \(admin, [\w-]{11}\)", summary)
    pids = children(agent)
    assert len(pids) == 2
    assert not any(map(is_running, pids))
    state = Path(agent.wait_for("agent starts")["state_dir"])
    assert not state.exists()
    assert list(bench.directory.iterdir()) == []


def test_the_demo_uses_the_next_free_port_and_names_it(bench: Bench) -> None:
    with port_taken(FIRST_PORT):
        agent = bench.agent("--dev")
        url = str(agent.wait_for("agent starts")["manager_url"])
        agent.wait_for("registered")
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
    port = int(url.rpartition(":")[2])
    assert FIRST_PORT < port < FIRST_PORT + 100
    assert f"Port {FIRST_PORT} is taken: the dev Manager uses {port}." in texts(agent)


def test_ctrl_c_during_the_self_test_exits_0_and_cleans_up(bench: Bench) -> None:
    agent = bench.agent("--dev", LOG_FORMAT="json")
    url = str(agent.wait_for("agent starts")["manager_url"])
    # Its page is open, and its API has no password that anybody knows.
    page = requests.get(url, headers={"Accept": "text/html"}, timeout=DEADLINE_SECONDS)
    assert "Start a test" in page.text
    with Api(url) as api:
        assert api.login().status_code == 401
    agent.wait_for("client started")
    agent.signal(signal.SIGINT)
    assert agent.exit_code(timeout=10) == 0, agent.lines
    assert not any(map(is_running, children(agent)))
    assert not Path(agent.wait_for("agent starts")["state_dir"]).exists()
    assert not [line for line in texts(agent) if "Traceback" in line]
    messages = [line["message"] for line in agent.lines if isinstance(line, dict)]
    assert messages[-1] == "agent stopped"


def test_a_failed_self_test_exits_1_and_names_the_reason(bench: Bench) -> None:
    unlucky = stand_in(
        bench.directory / "unlucky", "echo 'iperf3: error - out of luck' >&2; exit 1"
    )
    agent = bench.agent("--dev", IPERF3_PATH=unlucky)
    assert agent.exit_code() == 1
    said = agent.wait_for("agent ends", exit_code=1)["error"]
    assert said.startswith("the test on loopback failed: ") and "out of luck" in said
    assert not {"exception", "advice"} & agent.wait_for("agent ends").keys()


def test_no_advice_is_not_printed_on_a_terminal_either(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("99\n")
    settings = {"AGENT_KEY": "a-long-key", "STATE_DIR": str(tmp_path), "LOG_FORMAT": "console"}
    ended = run(cwd=tmp_path, **settings)
    assert ended.code == 78
    assert "agent ends" in ended.output and "advice=" not in ended.output


def test_the_demo_without_flask_exits_78_and_shows_how_to_install_it(tmp_path: Path) -> None:
    missing = "raise ModuleNotFoundError(\"No module named 'flask'\", name='flask')\n"
    (tmp_path / "flask.py").write_text(missing)
    ended = run("--dev", cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert ended.code == 78
    assert ended.errors.splitlines() == [
        "agent-run: --dev needs flask, which is not installed: run: pip install flask"
    ]


def test_a_setting_that_the_demo_would_ignore_is_refused(tmp_path: Path) -> None:
    ended = run("--dev", "--manager-url", "http://m:8000", "--state-dir", "x", cwd=tmp_path)
    assert (ended.code, ended.output) == (78, "")
    words = "--dev has a Manager and a state directory of its own: leave out"
    assert f"{words} --manager-url, --state-dir\n" in ended.errors


def test_a_wrong_setting_of_the_demo_exits_78(tmp_path: Path) -> None:
    ended = run("--dev", cwd=tmp_path, MAX_TASKS="many")
    assert ended.code == 78
    assert "MAX_TASKS is 'many'" in ended.errors and "AGENT_KEY" not in ended.errors
