"""The state directory: its permissions, lock and format, and whose an error is."""

import errno
import fcntl
import os
import signal
import stat
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.errors import ConfigError, StateLocked, StateUnusable
from agent.state.directory import StateDirectory
from agent.state.ledger import Ledger
from tests.support.harness import Bench


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def tree(path: Path) -> dict[str, bytes]:
    """Every file below, with its content; directories too."""
    return {str(file): file.read_bytes() if file.is_file() else b"" for file in path.rglob("*")}


def test_only_its_user_can_look_into_it(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "made" / "state")
    assert mode(tmp_path / "made" / "state") == 0o700
    assert mode(state.children) == 0o700
    assert mode(tmp_path / "made" / "state" / "lock") == 0o600


def test_an_open_directory_still_hides_what_the_children_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert mode(StateDirectory(tmp_path).children) == 0o700


def test_nobody_else_can_hold_a_lock_of_an_open_directory(tmp_path: Path) -> None:
    """All that is locked is his who starts the agent."""
    tmp_path.chmod(0o755)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_SH)
    state = StateDirectory(tmp_path)
    os.close(other)
    assert mode(tmp_path / "lock") == 0o600 and mode(state.outbox) == 0o700


def test_a_directory_whose_lock_was_removed_is_still_locked(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path)
    (first.path / "lock").unlink()
    with pytest.raises(StateLocked):
        StateDirectory(tmp_path)


def test_a_second_user_of_the_directory_is_told_what_to_do(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path)
    (first.children / "7.1.json").touch()
    with pytest.raises(StateLocked, match="another AGENT_NAME or STATE_DIR") as caught:
        StateDirectory(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert (first.children / "7.1.json").exists(), "the first one's files are not touched"


def test_a_second_agent_of_the_directory_ends_with_73(bench: Bench) -> None:
    first = bench.agent()
    first.wait_for("registered")
    second = bench.agent()
    said = second.wait_for("agent ends", exit_code=73)
    assert "another AGENT_NAME or STATE_DIR" in said["error"]
    assert second.exit_code() == 73
    first.signal(signal.SIGKILL)
    first.exit_code()
    bench.agent().wait_for("registered")


def test_a_directory_that_cannot_be_made_ends_with_78(bench: Bench) -> None:
    in_the_way = bench.directory / "file"
    in_the_way.touch()
    agent = bench.agent(STATE_DIR=str(in_the_way / "state"))
    assert agent.exit_code() == 78
    (said,) = agent.lines
    assert said.startswith(f"agent-run: STATE_DIR {in_the_way / 'state'} cannot be used")


@pytest.mark.parametrize("found", ["2\n", "", "one"])
def test_a_format_that_is_not_known_is_refused_and_everything_is_left_alone(
    tmp_path: Path, found: str
) -> None:
    (tmp_path / "format").write_text(found)
    (tmp_path / "journal").write_bytes(b"of another version")
    (tmp_path / "results").mkdir()
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match="use the version that wrote it") as caught:
        StateDirectory(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert repr(found.strip()) in str(caught.value)
    assert tree(tmp_path) == before


def test_an_agent_with_a_format_that_it_does_not_know_ends_with_78(bench: Bench) -> None:
    path = bench.directory / "state-1"
    path.mkdir()
    (path / "format").write_text("2\n")
    agent = bench.agent()
    assert "and this version knows '1'" in agent.wait_for("agent ends", exit_code=78)["error"]
    assert agent.exit_code() == 78


def test_disk_work_is_done_in_another_thread_and_a_failed_write_is_the_directorys(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = StateDirectory(tmp_path)
    with capture_logs() as logs:
        assert state.run(threading.get_native_id) != threading.get_native_id()
        with pytest.raises(StateUnusable, match="nowhere"):
            state.run(os.stat, tmp_path / "nowhere")
        assert state.trouble == "", "a failed reading is the reader's"
        for _ in range(2):
            with pytest.raises(StateUnusable, match="nowhere"):
                state.write(os.unlink, tmp_path / "nowhere")
    assert "nowhere" in state.trouble
    assert [line["event"] for line in logs] == ["the state directory cannot be written"]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_host_is_short_of_is_not_the_directorys_trouble(
    tmp_path: Path, number: int
) -> None:
    state = StateDirectory(tmp_path)

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    with capture_logs() as logs, pytest.raises(StateUnusable, match=os.strerror(number)):
        state.write(fail)
    assert state.trouble == "" and not logs


@pytest.mark.parametrize("below", ["outbox", "rejected", "kept"])
def test_a_directory_below_it_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    listdir = os.listdir

    def refused(path: Path) -> list[str]:
        if path.name == below:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(ConfigError, match="Permission denied.*make it a directory that"):
        Ledger(StateDirectory(tmp_path))
