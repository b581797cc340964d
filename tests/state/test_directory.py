"""The state directory: its permissions, lock, format, recovery and quota."""

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from gevent.event import Event
from structlog.testing import capture_logs

from agent.errors import ConfigError, StateLocked, StateUnusable
from agent.state import directory as module
from agent.state.directory import StateDirectory
from tests.support.harness import Bench, until


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def watched(state: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Watch the directory every 10 ms; gives the trouble that each recovery ended."""
    monkeypatch.setattr(module, "LOOK", 0.01)
    recovered: list[str] = []
    stop = Event()
    greenlet = gevent.spawn(state.watch, lambda: recovered.append(state.trouble), stop)
    try:
        yield recovered
    finally:
        stop.set()
        greenlet.join(5)
        assert greenlet.successful()


def fill(path: Path, age: int, size: int = 8192) -> Path:
    """A file that was written so many seconds ago."""
    path.write_bytes(b"x" * size)
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def tree(path: Path) -> dict[str, bytes]:
    """Every file below, with its content; directories too."""
    return {str(file): file.read_bytes() if file.is_file() else b"" for file in path.rglob("*")}


def test_only_its_user_can_look_into_it(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "made" / "state", 1024**3)
    assert mode(tmp_path / "made" / "state") == 0o700
    assert mode(state.children) == 0o700
    assert mode(tmp_path / "made" / "state" / "lock") == 0o600


def test_an_open_directory_still_hides_what_the_children_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert mode(StateDirectory(tmp_path, 1024**3).children) == 0o700


def test_a_second_user_of_the_directory_is_told_what_to_do(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path, 1024**3)
    (first.children / "7.1.json").touch()
    with pytest.raises(StateLocked, match="another AGENT_NAME or STATE_DIR") as caught:
        StateDirectory(tmp_path, 1024**3)
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
        StateDirectory(tmp_path, 1024**3)
    assert str(tmp_path) in str(caught.value)
    assert repr(found.strip()) in str(caught.value)
    after = tree(tmp_path)
    assert after.pop(str(tmp_path / "lock")) == b""
    assert after == before


def test_an_agent_with_a_format_that_it_does_not_know_ends_with_78(bench: Bench) -> None:
    path = bench.directory / "state-1"
    path.mkdir()
    (path / "format").write_text("2\n")
    agent = bench.agent()
    assert "and this version knows '1'" in agent.wait_for("agent ends", exit_code=78)["error"]
    assert agent.exit_code() == 78


def test_disk_work_is_done_in_another_thread_and_its_error_is_the_directorys(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = StateDirectory(tmp_path, 1024**3)
    with capture_logs() as logs:
        assert state.run(threading.get_native_id) != threading.get_native_id()
        assert state.trouble == ""
        for _ in range(2):
            with pytest.raises(StateUnusable, match="nowhere"):
                state.run(os.unlink, tmp_path / "nowhere")
    assert "nowhere" in state.trouble
    assert [line["event"] for line in logs] == ["the state directory cannot be written"]
    assert "Traceback" not in capfd.readouterr().err


def test_trouble_is_over_when_the_directory_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDirectory(tmp_path, 1024**3)
    obstacle = tmp_path / "writable.new"
    obstacle.mkdir()
    with watched(state, monkeypatch) as recovered:
        with pytest.raises(StateUnusable):
            state.run(os.unlink, tmp_path / "nowhere")
        until(lambda: "writable.new" in state.trouble)
        assert not recovered
        with capture_logs() as logs:
            obstacle.rmdir()
            until(lambda: not state.trouble)
    assert len(recovered) == 1
    assert [line["event"] for line in logs] == ["the state directory can be written again"]


def test_a_write_that_fails_while_others_are_tried_again_is_a_new_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDirectory(tmp_path, 1024**3)
    looks: list[str] = []

    def look() -> None:
        looks.append(state.trouble)
        if len(looks) == 1:
            state.trouble = "a write failed meanwhile"

    monkeypatch.setattr(state, "_look", look)
    with watched(state, monkeypatch) as recovered:
        state.run(os.stat, tmp_path)
        until(lambda: len(looks) == 1)
        assert not recovered
        until(lambda: len(recovered) == 1)
    assert looks[:2] == ["", "a write failed meanwhile"]


def test_over_the_quota_the_oldest_kept_documents_go_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDirectory(tmp_path, 40_000)
    waiting = fill(state.outbox / "000000001.document", age=500)
    refused = fill(state.rejected / "000000002.document", age=400)
    oldest, older, newest = (
        fill(state.kept / f"{number:09d}.document", age)
        for number, age in ((9, 300), (3, 200), (5, 100))
    )
    with watched(state, monkeypatch):
        until(lambda: not oldest.exists())
    assert waiting.exists() and refused.exists() and older.exists() and newest.exists()
    assert not state.trouble


def test_the_directory_is_looked_at_again_when_something_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDirectory(tmp_path, 4096)
    kept = fill(state.kept / "000000001.document", age=10)
    with watched(state, monkeypatch):
        until(lambda: not kept.exists())
        fill(kept, age=10)
        gevent.sleep(0.2)
        assert kept.exists(), "this agent has done nothing since, and sleeps"
        state.run(os.getpid)
        until(lambda: not kept.exists())


def test_files_that_may_not_be_removed_are_trouble_when_they_exceed_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDirectory(tmp_path, 20_000)
    kept = fill(state.kept / "000000001.document", age=10)
    refused = fill(state.rejected / "000000002.document", age=400, size=40_960)
    with watched(state, monkeypatch) as recovered:
        until(lambda: "empty rejected/, or raise STATE_MAX_BYTES" in state.trouble)
        assert not kept.exists() and refused.exists() and not recovered
        refused.unlink()
        until(lambda: not state.trouble)
