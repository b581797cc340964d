"""The registration key: where it comes from, what is refused, and that no message shows it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.config.key import Key
from agent.config.settings import read_settings
from agent.errors import ConfigError
from tests.support.command import NO_MANAGER, run
from tests.support.lone_agent import lone_agent

CANARY = "canary-5d1c"


def key_file(directory: Path, content: bytes | str = CANARY, mode: int = 0o600) -> Path:
    """A file for AGENT_KEY_FILE."""
    path = directory / "agent-key"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def fault(**secrets: str) -> str:
    """The one fault that these variables cause."""
    with pytest.raises(ConfigError) as caught:
        read_settings({}, secrets)
    (only,) = caught.value.faults
    return only


def a_key(*secrets: dict[str, str]) -> Key:
    """The key of an agent with these variables."""
    config = read_settings({}, *secrets)
    return Key(config.agent_key, config.agent_key_file)


def key_of(*secrets: dict[str, str]) -> str:
    """The text of that key."""
    return a_key(*secrets).fresh()


def test_credentials_that_cannot_be_looked_for_are_none() -> None:
    """As those of a unit that another user has inherited; root may search every directory."""
    place = {"CREDENTIALS_DIRECTORY": "/" + "x" * 300}
    assert "AGENT_KEY is not set" in fault(**place)
    assert key_of(place, {"AGENT_KEY": "other"}) == "other"


def test_the_fault_of_a_missing_key_names_both_variables() -> None:
    for secrets in ({}, {"AGENT_KEY": "", "AGENT_KEY_FILE": ""}):
        assert "AGENT_KEY is not set" in fault(**secrets)
        assert "AGENT_KEY_FILE" in fault(**secrets)


def test_the_key_of_the_example_is_refused(tmp_path: Path) -> None:
    placeholder = "your-registration-key-here"
    assert "AGENT_KEY is still the example value" in fault(AGENT_KEY=placeholder)
    path = key_file(tmp_path, placeholder)
    assert f"AGENT_KEY_FILE {path} is still" in fault(AGENT_KEY_FILE=str(path))


@pytest.mark.parametrize("key", [f" {CANARY}", f"{CANARY}\n", f"{CANARY}é", f"{CANARY}\x7f", " "])
def test_a_key_that_does_not_fit_a_header_is_refused_and_not_shown(key: str) -> None:
    message = fault(AGENT_KEY=key)
    assert message.startswith("AGENT_KEY is empty or not plain text: must be ")
    assert CANARY not in message


@pytest.mark.parametrize("content", [CANARY, f"{CANARY}\n", f"  {CANARY}\r\n"])
def test_white_space_around_the_key_in_a_file_is_ignored(tmp_path: Path, content: str) -> None:
    assert key_of({"AGENT_KEY_FILE": str(key_file(tmp_path, content))}) == CANARY


def test_a_key_file_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, mode=0o604)
    assert fault(AGENT_KEY_FILE=str(path)) == (
        f"AGENT_KEY_FILE {path} is readable by everybody: chmod 0600 it"
    )
    path.chmod(0o640)
    assert key_of({"AGENT_KEY_FILE": str(path)}) == CANARY


@pytest.mark.parametrize("content", [b"", b" \n", CANARY.encode() + b"\nmore", b"\xff\xfe"])
def test_a_key_file_without_a_key_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = key_file(tmp_path, content)
    message = fault(AGENT_KEY_FILE=str(path))
    assert str(path) in message
    assert CANARY not in message


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_key_file_that_cannot_be_read_is_a_fault(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert f"AGENT_KEY_FILE {path} cannot be read" in fault(AGENT_KEY_FILE=str(path))
    assert "cannot be read" in fault(AGENT_KEY_FILE="~nobody-of-that-name/key")


@pytest.mark.process
@pytest.mark.parametrize("arguments", [(), ("--debug",)])
def test_an_agent_whose_key_file_everybody_can_read_does_not_start(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    path = key_file(tmp_path, mode=0o644)
    ended = run(*arguments, cwd=tmp_path, AGENT_KEY_FILE=str(path), MANAGER_URL=NO_MANAGER)
    assert (ended.code, ended.output) == (78, "")
    assert ended.errors == (
        f"agent-run: AGENT_KEY_FILE {path} is readable by everybody: chmod 0600 it\n"
    )


# systemd uses 0400, or 0440 with an access control list for the user of the service.
@pytest.mark.parametrize("mode", [0o400, 0o440])
def test_a_systemd_credential_is_found(tmp_path: Path, mode: int) -> None:
    place = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert "AGENT_KEY is not set" in fault(**place)
    path = key_file(tmp_path, mode=mode)
    assert key_of(place) == CANARY
    assert key_of({"AGENT_KEY_FILE": str(path)}) == CANARY
    assert key_of({**place, "AGENT_KEY": "other"}) == "other"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_a_key_file_that_may_have_no_end_is_not_read(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(path := tmp_path / "agent-key")
    assert f"AGENT_KEY_FILE {path} cannot be read: it is no regular file" in fault(
        AGENT_KEY_FILE=str(path)
    )


def test_a_pipe_in_the_place_of_the_key_file_is_not_waited_for(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    key = a_key({"AGENT_KEY_FILE": str(path)})
    path.unlink()
    os.mkfifo(path, 0o600)
    assert key.fresh() == CANARY


def test_a_key_that_no_manager_takes_is_refused_and_not_shown(tmp_path: Path) -> None:
    assert key_of({"AGENT_KEY": "k" * 4096}) == "k" * 4096
    path = key_file(tmp_path, CANARY * 1000)
    for secrets in ({"AGENT_KEY": CANARY * 1000}, {"AGENT_KEY_FILE": str(path)}):
        message = fault(**secrets)
        assert "has more than 4096 characters" in message
        assert CANARY not in message


@pytest.mark.process
@pytest.mark.parametrize(("key", "is_short"), [("7-chars", True), ("8-chars!", False)])
def test_a_short_key_is_taken_with_a_warning(tmp_path: Path, key: str, is_short: bool) -> None:
    words = "the registration key has fewer than 8 characters"
    path = key_file(tmp_path, key)
    ended = run("--check", cwd=tmp_path, AGENT_KEY_FILE=str(path), MANAGER_URL=NO_MANAGER)
    assert ended.code == 69, "nothing is wrong but the Manager"
    assert (words in ended.output) == is_short
    with lone_agent(NO_MANAGER, tmp_path, AGENT_KEY="", AGENT_KEY_FILE=str(path)) as agent:
        agent.wait_for("not registered yet")
        warned = [line for line in agent.lines if words in line["message"]]
        assert [line["level"] for line in warned] == ["warning"] * is_short
        assert key not in str(agent.lines) + ended.output + ended.errors


@pytest.mark.parametrize(("key", "is_short"), [("7-chars", True), ("8-chars!", False)])
def test_a_short_key_that_comes_later_is_taken_with_a_warning(
    tmp_path: Path, key: str, is_short: bool
) -> None:
    path = key_file(tmp_path)
    current = a_key({"AGENT_KEY_FILE": str(path)})
    replaced(path, key, 1000.0)
    with capture_logs() as logs:
        assert (current.fresh(), current.fresh()) == (key, key)
    assert [line["log_level"] for line in logs] == ["warning"] * is_short


def test_the_key_of_the_environment_overrides_that_of_the_env_file(tmp_path: Path) -> None:
    in_file = {"AGENT_KEY": "of-the-env-file"}
    assert key_of({"AGENT_KEY": "of-the-env"}, in_file) == "of-the-env"
    assert key_of({"AGENT_KEY_FILE": str(key_file(tmp_path))}, in_file) == CANARY
    assert key_of({"AGENT_KEY": ""}, in_file) == "of-the-env-file"


@pytest.mark.parametrize("name", ["agent-key", "missing"])
def test_a_key_and_a_key_file_from_one_source_are_refused(tmp_path: Path, name: str) -> None:
    key_file(tmp_path)
    both = {"AGENT_KEY": "other", "AGENT_KEY_FILE": str(tmp_path / name)}
    assert fault(**both) == "AGENT_KEY and AGENT_KEY_FILE are both set: set only one of them"
    assert key_of({"AGENT_KEY": "of-the-env"}, both) == "of-the-env"


@pytest.mark.process
def test_the_command_takes_the_key_of_the_environment_before_that_of_the_env_file(
    tmp_path: Path,
) -> None:
    (tmp_path / ".env").write_text("AGENT_KEY=your-registration-key-here\n")
    ended = run("--check", cwd=tmp_path, AGENT_KEY=CANARY, MANAGER_URL=NO_MANAGER)
    assert ended.code == 69, ended
    assert run("--check", cwd=tmp_path, MANAGER_URL=NO_MANAGER).code == 78


@pytest.mark.process
def test_with_an_empty_variable_the_key_of_the_env_file_counts(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"AGENT_KEY={CANARY}\n")
    ended = run("--check", cwd=tmp_path, AGENT_KEY="", MANAGER_URL=NO_MANAGER)
    assert ended.code == 69, ended
    assert CANARY not in ended.output + ended.errors


def replaced(path: Path, content: str, modified: float, mode: int = 0o600) -> None:
    """Replace a key file by another, as programs that rotate keys do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(content)
    fresh.chmod(mode)
    os.utime(fresh, (modified, modified))
    fresh.replace(path)


def test_a_key_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    key = a_key({"AGENT_KEY_FILE": str(path)})
    assert key.fresh() == CANARY
    replaced(path, "fresh", 1000.0)
    assert key.fresh() == "fresh"


def test_the_last_valid_key_is_kept_while_the_key_file_is_wrong_or_missing(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    key = a_key({"AGENT_KEY_FILE": str(path)})
    replaced(path, "", 1000.0)
    assert key.fresh() == CANARY
    replaced(path, "fresh", 1500.0, mode=0o644)
    assert key.fresh() == CANARY
    path.unlink()
    assert key.fresh() == CANARY
    replaced(path, "fresh", 2000.0)
    assert key.fresh() == "fresh"


def test_the_config_does_not_show_the_key() -> None:
    assert CANARY not in repr(read_settings({}, {"AGENT_KEY": CANARY}))
