"""`agent-run --check`: what it prints, its exit codes, and that it changes nothing."""

import json
import os
import pty
import sys
from contextlib import suppress
from pathlib import Path

import gevent
import pytest
from gevent import subprocess
from gevent.os import tp_read

from tests.support.checking import CANARY, check, marks
from tests.support.command import MODULE, NO_MANAGER
from tests.support.faulty_manager import raw_reply
from tests.support.harness import PATIENCE, Bench, environment
from tests.support.sockets import MakeManager

pytestmark = pytest.mark.process


def test_a_check_that_finds_no_fault_exits_0_and_changes_nothing(bench: Bench) -> None:
    ended = check(bench.directory, bench.manager.url)
    assert (ended.code, ended.errors) == (0, "")
    what = ("configuration", "state directory", "iperf3", "address", "Manager")
    assert marks(ended) == {name: "ok" for name in what}
    assert f"{bench.manager.url} answers" in ended.output
    assert "; MAX_BITRATE and MAX_TEST_SECONDS hold for servers as well" in ended.output
    assert list(bench.directory.iterdir()) == []
    assert bench.store.agents.get(1).last_heartbeat is None


def test_a_manager_that_is_down_exits_69(tmp_path: Path) -> None:
    ended = check(tmp_path, NO_MANAGER)
    assert ended.code == 69
    assert [name for name, mark in marks(ended).items() if mark != "ok"] == ["Manager"]
    assert "a firewall forbids it, or MANAGER_URL is wrong" in ended.output


def test_a_manager_whose_name_cannot_be_resolved_exits_69(tmp_path: Path) -> None:
    ended = check(tmp_path, "http://manager.invalid:8000")
    assert ended.code == 69
    assert "MANAGER_URL" in ended.output


def test_a_server_other_than_a_manager_exits_69(faulty: MakeManager, tmp_path: Path) -> None:
    stranger = faulty(lambda _: raw_reply(b"<html>It works!</html>", Content_Type="text/html"))
    ended = check(tmp_path, stranger.url)
    assert ended.code == 69
    assert f"asked {stranger.url}/healthz, got 200 with HTML: is this a Manager?" in ended.output
    assert [request.path for request in stranger.requests] == ["/healthz"]
    assert "x-agent-key" not in stranger.requests[0].headers


@pytest.mark.parametrize("path", ["/no/such/iperf3", "/bin/true"])
def test_a_missing_iperf3_exits_78_even_if_the_manager_is_down(tmp_path: Path, path: str) -> None:
    ended = check(tmp_path, NO_MANAGER, IPERF3_PATH=path)
    assert ended.code == 78
    assert marks(ended)["iperf3"] == "not ok"
    assert path in ended.output and "IPERF3_PATH" in ended.output


def test_wrong_settings_exit_78_and_the_rest_is_still_checked(bench: Bench) -> None:
    ended = check(bench.directory, bench.manager.url, MAX_TASKS="many", AGENT_KEY="é")
    assert (ended.code, ended.errors) == (78, "")
    assert [line for line in ended.output.splitlines() if line.startswith("not ok")] == [
        "not ok  configuration    MAX_TASKS is 'many' (in the environment): must be a whole"
        " number from 1 to 100000",
        "not ok  configuration    AGENT_KEY is empty or not plain text: must be the registration"
        " key that the Manager gave this agent",
    ]
    what = ("state directory", "iperf3", "address", "Manager")
    assert marks(ended) == {"configuration": "not ok"} | {name: "ok" for name in what}


@pytest.mark.parametrize(
    ("variable", "value", "unseen"),
    [
        ("MANAGER_URL", "manager", {"address", "Manager"}),
        ("MANAGER_CA_FILE", "/no/such/file", {"address", "Manager"}),
        ("MANAGER_CERT_FILE", __file__, {"address", "Manager"}),
        ("AGENT_NAME", "a b", {"state directory"}),
    ],
)
def test_what_depends_on_a_wrong_setting_is_not_checked(
    bench: Bench, variable: str, value: str, unseen: set[str]
) -> None:
    ended = check(bench.directory, bench.manager.url, **{variable: value})
    assert ended.code == 78
    what = {"configuration", "state directory", "iperf3", "address", "Manager"}
    assert marks(ended).keys() == what - unseen
    assert marks(ended)["configuration"] == "not ok"


@pytest.mark.parametrize("variable", ["STATE_DIR", "LOG_FILE"])
def test_a_path_below_a_file_exits_78(bench: Bench, variable: str) -> None:
    (bench.directory / "file").touch()
    in_the_way = str(bench.directory / "file" / "below")
    ended = check(bench.directory, bench.manager.url, **{variable: in_the_way})
    assert ended.code == 78
    assert [name for name, mark in marks(ended).items() if mark != "ok"] == ["configuration"]
    assert variable in ended.output and in_the_way in ended.output


def test_a_log_file_that_can_be_created_is_ok_and_is_not_created(bench: Bench) -> None:
    path = bench.directory / "agent.log"
    ended = check(bench.directory, bench.manager.url, LOG_FILE=str(path))
    assert ended.code == 0
    assert marks(ended)["log file"] == "ok"
    assert not path.exists()


def on_a_terminal(directory: Path, **variables: str) -> set[bytes]:
    """The beginnings of the lines that a check prints on a terminal, with colors."""
    ours, its = pty.openpty()
    settings = {"MANAGER_URL": NO_MANAGER, "AGENT_KEY": CANARY, "STATE_DIR": str(directory)}
    process = subprocess.Popen(
        [sys.executable, *MODULE, "--check"],
        cwd=directory,
        env=environment(TERM="xterm", **settings, **variables),
        stdin=its,
        stdout=its,
        stderr=its,
    )
    output = b""
    with gevent.Timeout(PATIENCE), suppress(OSError):  # which is how its end is told
        os.close(its)
        while piece := tp_read(ours, 65536):
            output += piece
    os.close(ours)
    process.wait()
    return {line[: line.index(b"ok") + 2] for line in output.splitlines()}


@pytest.mark.skipif(sys.platform != "linux", reason="how a terminal ends is Linux's")
def test_a_check_on_a_terminal_is_colored_unless_no_color_is_set(tmp_path: Path) -> None:
    assert on_a_terminal(tmp_path) == {b"\x1b[32mok", b"\x1b[31mnot ok"}
    assert on_a_terminal(tmp_path, NO_COLOR="1") == {b"ok", b"not ok"}


def test_a_check_in_json_prints_one_object_a_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOG_FORMAT=JSON\n")
    found = [json.loads(line) for line in check(tmp_path, NO_MANAGER).output.splitlines()]
    assert [(line["check"], line["ok"], line["fault"]) for line in found] == [
        ("configuration", True, None),
        ("state directory", True, None),
        ("iperf3", True, None),
        ("address", True, None),
        ("Manager", False, "manager"),
    ]
    assert "MANAGER_URL is wrong" in found[-1]["message"]


def test_a_check_in_json_prints_an_object_for_a_wrong_setting(tmp_path: Path) -> None:
    ended = check(tmp_path, NO_MANAGER, LOG_FORMAT="json", MAX_TASKS="many", STATUS_ADDRESS="here")
    found = [json.loads(line) for line in ended.output.splitlines()]
    assert (ended.code, ended.errors) == (78, "")
    wrong = [line for line in found if line["fault"] == "settings"]
    assert {line["check"] for line in wrong} == {"configuration"}
    assert [line["message"].split(" ")[0] for line in wrong] == ["STATUS_ADDRESS", "MAX_TASKS"]
    assert [line["check"] for line in found if line["fault"] == "manager"] == ["Manager"]
