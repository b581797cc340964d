"""Names that are no UTF-8, in each place where the system gives the agent a name.

Python holds such a byte as half a surrogate pair, here `\\udcff`, and passes it on as the byte.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import NO_MANAGER, run, run_program
from tests.support.faulty_manager import Request, raw_reply, well
from tests.support.harness import Bench, free_port, iperf3_server, until
from tests.support.lone_agent import lone_agent
from tests.support.sockets import MakeManager
from tests.support.status_page import ask

# Python without its own repairs of this locale, in which no name but ASCII has a meaning.
ASCII_ONLY = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ODD, SHOWN = "x\udcff", "x\\udcff"


def odd_path(bench: Bench) -> dict[str, str]:
    """A PATH whose first entry has an odd name, and the installed iperf3."""
    entry = Path(bench.directory, f"bin-{ODD}")
    entry.mkdir()
    (entry / "iperf3").symlink_to(shutil.which("iperf3") or "")
    return {"PATH": f"{entry}:{os.environ['PATH']}"}


def odd_iperf3(bench: Bench) -> dict[str, str]:
    """IPERF3_PATH with an odd name."""
    path = Path(bench.directory, f"iperf3-{ODD}")
    path.symlink_to(shutil.which("iperf3") or "")
    return {"IPERF3_PATH": str(path)}


@pytest.mark.parametrize("locale", [{}, ASCII_ONLY], ids=["UTF-8", "ASCII only"])
@pytest.mark.parametrize("named", [odd_path, odd_iperf3])
def test_odd_names_are_used_as_they_are_and_shown_with_escapes(
    bench: Bench, named: Callable[[Bench], dict[str, str]], locale: dict[str, str]
) -> None:
    log_file, page = bench.directory / f"log-{ODD}", free_port()
    settings = {**named(bench), **locale, "STATUS_ADDRESS": f"127.0.0.1:{page}"}
    state = Path(bench.directory, f"state-{ODD}")
    agent = bench.agent(number=1, STATE_DIR=str(state), LOG_FILE=str(log_file), **settings)
    assert agent.wait_for("agent starts")["state_dir"].endswith(f"state-{SHOWN}")
    port = free_port()
    server = bench.task("iperf_server_start", port=port)
    bench.ended(server)
    client = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=1)
    assert bench.ended(client).status == "succeeded", client.error
    for task in (server, client):
        assert SHOWN in bench.result(task)["agent"]["argv"][0]
        assert bench.result(task)["agent"]["argv"][0].endswith(("/iperf3", SHOWN))
    for path in ("/", "/status", "/metrics", "/readyz"):
        assert ask(f"http://127.0.0.1:{page}", path).status == 200
    # The journal has the running server with its command line.
    agent.signal(signal.SIGKILL)
    agent.exit_code()
    assert [json.loads(line) for line in log_file.read_text().splitlines()] == agent.lines
    again = bench.agent("--exit-after-idle", "0", number=1, STATE_DIR=str(state), **settings)
    assert again.exit_code() == 0, again.lines
    assert "journal has damaged lines" not in json.dumps(again.lines)
    assert bench.result(server)["agent"]["argv"][0] == bench.result(client)["agent"]["argv"][0]


def test_an_iperf3_of_an_odd_name_that_is_missing_fails_the_task_and_nothing_else(
    bench: Bench,
) -> None:
    page = free_port()
    agent = bench.agent(IPERF3_PATH=f"/no/{ODD}", STATUS_ADDRESS=f"127.0.0.1:{page}")
    for _ in range(2):
        task = bench.ended(bench.task("iperf_client_run", server_ip="127.0.0.1", port=1))
        assert str(task.error).startswith(f"/no/{SHOWN} cannot be run")
        assert bench.result(task)["agent"]["error_class"] == "iperf3_missing"
    shown = ask(f"http://127.0.0.1:{page}", "/status").json()["results"]
    assert [result["message"][: len(f"/no/{SHOWN}")] for result in shown] == [f"/no/{SHOWN}"] * 2
    assert SHOWN in ask(f"http://127.0.0.1:{page}", "/").body.decode()
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0


def test_a_state_directory_of_an_odd_name_that_cannot_be_written_is_named_in_the_result(
    bench: Bench,
) -> None:
    state = Path(bench.directory, f"state-{ODD}")
    bench.agent(STATE_DIR=str(state)).wait_for("registered")
    (state / "children").rmdir()
    with iperf3_server(port := free_port()):
        task = bench.ended(bench.task("iperf_client_run", server_ip="127.0.0.1", port=port))
    assert f"state-{SHOWN}/children cannot be written" in str(task.error)


def test_a_port_that_a_process_of_an_odd_name_has_is_no_bug(bench: Bench) -> None:
    held = free_port()
    holder = Path(bench.directory, f"holder-{ODD}")
    shutil.copy(shutil.which("iperf3") or "", holder)
    bench.agent().wait_for("registered")
    with iperf3_server(held, program=str(holder)):
        task = bench.ended(bench.task("iperf_server_start", port=held))
    assert f"is in use by holder-{SHOWN} (pid" in str(task.error)


@pytest.mark.parametrize("format_", ["json", "console"])
def test_the_check_shows_odd_names_with_escapes(tmp_path: Path, format_: str) -> None:
    odd = str(tmp_path / f"{ODD}\n\x1b[2J")
    ended = run(
        "--check",
        cwd=tmp_path,
        AGENT_KEY="canary",
        MANAGER_URL=NO_MANAGER,
        LOG_FORMAT=format_,
        STATE_DIR=odd,
        LOG_FILE=odd,
        IPERF3_PATH=odd,
    )
    assert ended.code == 78, ended
    assert ended.errors == ""
    lines = ended.output.splitlines()
    assert len([line for line in lines if SHOWN in line.replace("\\\\", "\\")]) == 3, lines
    assert "\x1b" not in ended.output


@pytest.mark.parametrize("value", ["\udce9", "é"])
@pytest.mark.parametrize("locale", [{}, ASCII_ONLY], ids=["UTF-8", "ASCII only"])
def test_an_env_file_names_paths_as_the_environment_does(
    bench: Bench, value: str, locale: dict[str, str]
) -> None:
    content = f"# {value}\nSTATE_DIR=state-{value}\nLOG_FILE=log-{value}\n"
    (bench.directory / ".env").write_bytes(content.encode(errors="surrogateescape"))
    agent = bench.agent(number=1, STATE_DIR="", **locale)
    agent.wait_for("registered")
    assert (bench.directory / f"state-{value}" / "lock").exists()
    assert (bench.directory / f"log-{value}").exists()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "ascii"])
def test_an_env_file_with_a_nul_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / ".env").write_bytes("STATE_DIR=a\0b\n".encode(encoding))
    ended = run(cwd=tmp_path, AGENT_KEY="canary")
    assert (ended.code, ended.output) == (78, "")
    assert ".env: it is no text: save it in UTF-8" in ended.errors


def test_a_proxys_user_that_no_header_can_have_is_no_bug(tmp_path: Path) -> None:
    ended = run(
        cwd=tmp_path,
        AGENT_KEY="canary",
        MANAGER_URL="http://192.0.2.1",
        ADVERTISE_ADDRESS="127.0.0.1",
        HTTP_PROXY=f"http://{ODD}:secret@127.0.0.1:1",
        STATE_DIR="state",
        REGISTER_TIMEOUT="1",
    )
    assert ended.code == 69, ended


def test_nothing_that_the_manager_sends_steers_the_terminal(
    faulty: MakeManager, tmp_path: Path
) -> None:
    waiting = [b'{"task": {"id": 1, "type": "\\u001b[2J\\u009b2J", "payload": {"\\u001b[1A": 1}}}']

    def answer(request: Request) -> bytes:
        return raw_reply(waiting.pop()) if request.call == "claim" and waiting else well(request)

    manager = faulty(answer)
    with lone_agent(manager.url, tmp_path, LOG_FORMAT="console") as agent:
        manager.wait_for(lambda: "result" in manager.calls())
        until(lambda: any("task failed" in line for line in agent.lines))
        (line,) = [line for line in agent.lines if "task claimed" in line]
        assert "type=\\x1b[2J\\x9b2J" in line
        assert "\x1b" not in "".join(agent.lines) and "\x9b" not in "".join(agent.lines)


def test_a_removed_working_directory_is_a_fault_of_the_paths_below_it(tmp_path: Path) -> None:
    gone = f"mkdir gone; cd gone; rmdir ../gone; exec {sys.executable} -m agent"
    ended = run_program("sh", "-c", gone, cwd=tmp_path, AGENT_KEY="canary", LOG_FILE="log")
    assert ended.code == 78, ended
    assert "LOG_FILE is 'log' (in the environment): must be a file" in ended.errors
    assert "Traceback" not in ended.errors


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
def test_a_working_directory_that_may_not_be_searched_is_a_fault_too(tmp_path: Path) -> None:
    (tmp_path / "empty.env").touch()
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    other = ("setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-m", "agent")
    ended = run_program(
        *other,
        f"--env-file={tmp_path}/empty.env",
        cwd=closed,
        AGENT_KEY="canary",
        STATE_DIR="state",
    )
    assert ended.code == 78, ended
    assert "STATE_DIR state cannot be used: must be a directory" in ended.errors


@pytest.mark.skipif(os.geteuid() != 0, reason="another os-release needs root")
def test_a_system_of_an_odd_name_can_be_registered(bench: Bench) -> None:
    release = bench.directory / "os-release"
    release.write_bytes(b'PRETTY_NAME="caf\xe9"\n')
    bind = f"mount --bind {release} /etc/os-release && exec {sys.executable} -m agent"
    agent = bench.agent(program=("unshare", "--mount", "sh", "-c", bind))
    agent.wait_for("registered")
    assert str(bench.store.agents.get(1).operating_system).startswith("Linux ")
