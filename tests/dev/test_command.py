"""`python -m agent.dev` as a real process."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from click.testing import CliRunner, Result

from agent.config.types import NAME
from agent.dev.command import main
from agent.dev.server import DevManager
from tests.support.command import run_program
from tests.support.dev_client import DEADLINE_SECONDS, Api
from tests.support.harness import ROOT

Start = Callable[..., tuple["subprocess.Popen[str]", str]]
LINE = "dev Manager listening on "


@pytest.fixture(name="start")
def fixture_start() -> Iterator[Start]:
    """Starts a dev Manager on a free port; its process and its URL."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "agent.dev", "--listen", "127.0.0.1:0", *options]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        assert process.stdout is not None
        with gevent.Timeout(DEADLINE_SECONDS):
            line = process.stdout.readline()
        assert line.startswith(LINE)
        return process, line.removeprefix(LINE).strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def run(*options: str) -> Result:
    """Run the command where it is expected to end by itself."""
    return CliRunner().invoke(main, options)


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_one_line_and_ends_cleanly_on_a_signal(
    start: Start, number: signal.Signals
) -> None:
    process, url = start("--agent", "a1:key-1")
    with Api(url) as api, Api(url) as other:
        held = gevent.spawn(other.agent, "tasks/claim", Prefer="wait=60")
        assert api.agent("register", {"ip_address": "127.0.0.1"}).status_code == 200
        process.send_signal(number)
        output, errors = process.communicate(timeout=DEADLINE_SECONDS)
        held.kill()
    assert (process.returncode, output, errors) == (0, "", "")


@pytest.mark.process
def test_a_claim_and_a_result_survive_a_kill(start: Start, tmp_path: Path) -> None:
    options = ("--state", str(tmp_path / "state"), "--agent", "a1:key-1")
    process, url = start(*options)
    with Api(url) as api:
        api.login()
        for _ in range(2):
            api.call("POST", "tasks", {"agent_id": 1, "type": "kill_all"})
        api.agent("tasks/claim", Idempotency_Key="first")
        assert api.agent("tasks/1/result", {"status": "succeeded", "result": {"count": 3}}).ok
        assert api.agent("tasks/claim", Idempotency_Key="second").json()["task"]["id"] == 2
        process.kill()
        process.wait(DEADLINE_SECONDS)

    process, url = start(*options, "--agent", "a2:key-2")
    with Api(url) as api:
        api.login()
        done = api.call("GET", "tasks/1").json()
        assert (done["status"], done["result"]) == ("succeeded", {"count": 3})
        assert api.agent("tasks/claim", Idempotency_Key="second").json()["task"]["id"] == 2
        assert api.agent("tasks/claim", Idempotency_Key="third").json() == {"task": None}
        assert [agent["name"] for agent in api.call("GET", "agents").json()] == ["a1", "a2"]


@pytest.mark.process
def test_a_known_agent_gets_the_key_of_the_command_line(start: Start, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    process, _ = start("--state", state, "--agent", "a1:old")
    process.terminate()
    process.wait(DEADLINE_SECONDS)
    _, url = start("--state", state, "--agent", "a1:new:er")
    with Api(url) as api:
        assert api.agent("tasks/claim", X_AGENT_KEY="new:er").status_code == 200
        assert api.agent("tasks/claim", X_AGENT_KEY="old").status_code == 401


@pytest.mark.process
def test_without_extensions_no_claim_waits(start: Start) -> None:
    _, url = start("--agent", "a1:key-1", "--no-extensions")
    with Api(url) as api:
        assert "Preference-Applied" not in api.agent("tasks/claim", Prefer="wait=60").headers


@pytest.mark.process
def test_the_admin_password_can_be_chosen(start: Start) -> None:
    _, url = start("--admin-password", "other")
    with Api(url) as api:
        assert api.login("admin123").status_code == 401
        assert api.login("other").status_code == 200


@pytest.mark.process
def test_keys_and_password_come_from_the_environment_too(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEV_ADMIN_PASSWORD", "of-the-environment")
    monkeypatch.setenv("DEV_AGENTS", "a1:key-1 a2:key-2")
    _, url = start()
    with Api(url) as api:
        assert api.login().status_code == 401
        assert api.login("of-the-environment").status_code == 200
        assert [agent["name"] for agent in api.call("GET", "agents").json()] == ["a1", "a2"]


@pytest.mark.process
def test_it_listens_on_ipv6_too(start: Start) -> None:
    # The later --listen wins over the fixture's.
    _, url = start("--listen", "[::1]:0")
    assert url.startswith("http://[::1]:")
    with Api(url) as api:
        assert api.login().status_code == 200


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:8000", "example.org:8000"])
def test_off_loopback_it_requires_a_password(listen: str) -> None:
    for password in ([], ["--admin-password", ""]):
        result = run("--listen", listen, *password)
        assert result.exit_code == 78
        assert "give --admin-password" in result.output


@pytest.mark.parametrize(
    "listen", ["8000", "127.0.0.1", ":8000", "127.0.0.1:70000", "::1:8000", "http://h:1", "h:x"]
)
def test_a_bad_address_is_refused(listen: str) -> None:
    result = run("--listen", listen, "--admin-password", "p")
    assert result.exit_code == 78
    assert f"--listen {listen} must be HOST:PORT" in result.output


@pytest.mark.parametrize("agent", ["a1", "a1:", ":key", ""])
def test_an_agent_needs_a_name_and_a_key(agent: str) -> None:
    result = run("--listen", "127.0.0.1:0", "--agent", agent)
    assert result.exit_code == 78
    assert "must be NAME:KEY" in result.output


@pytest.mark.parametrize("name", ["a b", "-a", "a/b", "ä", "a" * 65])
def test_a_name_that_an_agent_refuses_is_refused(name: str) -> None:
    result = run("--listen", "127.0.0.1:0", "--agent", f"{name}:key")
    assert result.exit_code == 78
    assert f"{name!r} is no name for an agent: it must be {NAME.accepted}" in result.output


@pytest.mark.process
def test_without_flask_it_says_what_the_demo_says(tmp_path: Path) -> None:
    missing = "raise ModuleNotFoundError(\"No module named 'flask'\", name='flask')\n"
    (tmp_path / "flask.py").write_text(missing)
    where = f"{tmp_path}:{ROOT}"
    ended = run_program(sys.executable, "-m", "agent.dev", cwd=tmp_path, PYTHONPATH=where)
    assert (ended.code, ended.output) == (78, "")
    assert ended.errors.splitlines() == [
        "python -m agent.dev needs flask, which is not installed: run: pip install flask"
    ]


def test_a_port_in_use_is_refused(manager: DevManager) -> None:
    result = run("--listen", f"localhost:{manager.port}")
    assert result.exit_code == 78
    assert "Address already in use" in result.output


def test_a_foreign_state_file_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "notes.txt"
    foreign.write_text("not ours")
    result = run("--listen", "127.0.0.1:0", "--state", str(foreign))
    assert result.exit_code == 78
    assert f"{foreign}: not a state file" in result.output


def test_a_state_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    result = run("--listen", "127.0.0.1:0", "--state", str(tmp_path / "no" / "state"))
    assert result.exit_code == 78
    assert "cannot be written" in result.output
