"""The state directory: private, one agent's at a time, and cleared of what was left behind."""

import signal
import stat
from pathlib import Path

import pytest

from agent.errors import StateLocked
from agent.state import StateDirectory
from tests.harness import Bench


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


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
    said = agent.wait_for("agent ends", exit_code=78)
    assert f"STATE_DIR {in_the_way / 'state'} cannot be used" in said["error"]
    assert agent.exit_code() == 78
