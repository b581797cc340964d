"""The settings: their faults, their sources, and which source overrides which."""

import os
import sys
from pathlib import Path

import pytest

from agent.config.settings import SETTINGS, read_settings
from agent.errors import ConfigError
from tests.support.command import NO_MANAGER, run, run_program

KEY = {"AGENT_KEY": "key-of-a1"}

FAULTS = [
    ("API_VERSION", "one", "a whole number from 1 to 99"),
    ("MANAGER_CA_FILE", "/no/such/file", "a file that this user can read"),
    ("AGENT_NAME", "a b", "1 to 64 letters, digits, '_', '.' or '-', not starting with '.' or '-'"),
    ("ADVERTISE_ADDRESS", "here", "an IP address by which others reach this host, like 192.0.2.7"),
    ("STATE_DIR", "~nobody-of-that-name", "a path"),
    ("STATUS_ADDRESS", "9201", "HOST:PORT, like 127.0.0.1:9201"),
    ("LOG_LEVEL", "loud", "debug, info, warning or error"),
    ("HEARTBEAT_INTERVAL", "nan", "a number of seconds from 0.1 to 3600"),
    ("MAX_BITRATE", "10Gbit", "a number of bits per second, like 500M or 10G"),
    ("MAX_RESULT_BYTES", "1K", "a number of bytes, like 64M, of at least 65536"),
    ("ALLOWED_TARGETS", "all", "networks separated by commas, like 10.0.0.0/8,fd00::/8"),
]


@pytest.mark.parametrize(("variable", "text", "accepted"), FAULTS)
def test_a_fault_names_the_variable_the_value_and_what_is_accepted(
    variable: str, text: str, accepted: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings({}, {**KEY, variable: text})
    where = "in the environment"
    assert caught.value.faults == (f"{variable} is {text!r} ({where}): must be {accepted}",)


@pytest.mark.parametrize(
    ("text", "shown", "reason"),
    [
        ("manager", "manager", "it must start with http:// or https://"),
        ("ftp://manager", "ftp://manager", "it must start with http:// or https://"),
        ("http://", "http://", "it must name a host"),
        ("http://m:80800", "http://m:80800", "its port must be between 1 and 65535"),
        ("http://m:x", "http://m:x", "its port must be between 1 and 65535"),
        ("http://m/?a=b", "http://m/?a=b", "it must not have a space, a query or a fragment"),
        ("https://u:canary@m:x", "https://[hidden]@m:x", "it must not name a user"),
        ("HTTP://u:can/ary@x@m", "HTTP://[hidden]@m", "it must not name a user"),
        ("u:canary@m", "[hidden]@m", "it must not name a user"),
    ],
)
def test_a_fault_says_what_is_wrong_with_a_url_and_hides_its_password(
    text: str, shown: str, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings({"manager_url": text}, KEY)
    words = f"MANAGER_URL is {shown!r} (--manager-url): must be a URL like"
    assert caught.value.faults == (f"{words} https://manager.example:8000 ({reason})",)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MANAGER_URL", "http://manager\udcff"),
        ("MANAGER_URL", "http://manager/\x1b"),
        ("ADVERTISE_ADDRESS", "fe80::1%\udcff"),
        ("STATUS_ADDRESS", "here\udcff:9201"),
        ("ALLOWED_TARGETS", "fe80::%\udcff/64"),
    ],
)
def test_what_goes_into_a_message_must_be_plain_text(variable: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings({}, {**KEY, variable: text})
    (fault,) = caught.value.faults
    assert fault.startswith(f"{variable} is {text!r} (in the environment): must be ")
    assert fault.isprintable()
    assert fault.endswith(" (it must be plain text in UTF-8)")


@pytest.mark.parametrize("variable", ["AGENT_NAME", "LOG_LEVEL", "MAX_TASKS"])
def test_no_other_setting_but_a_path_may_have_a_byte_that_is_no_utf_8(variable: str) -> None:
    with pytest.raises(ConfigError, match=rf"{variable} is '\\udcff' .*: must be "):
        read_settings({variable.lower(): "\udcff"}, KEY)


def test_paths_that_cannot_be_written_are_reported_with_all_other_faults(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = str(tmp_path / "file" / "below")
    wrong = {"state_dir": below, "log_file": below, "max_tasks": "many"}
    with pytest.raises(ConfigError) as caught:
        read_settings(wrong)
    assert caught.value.faults == (
        f"LOG_FILE is {below!r} (--log-file): must be a file that this user can write",
        "MAX_TASKS is 'many' (--max-tasks): must be a whole number from 1 to 100000",
        "AGENT_KEY is not set: must be the registration key that the Manager gave this agent,"
        " or set AGENT_KEY_FILE",
        f"STATE_DIR {below} cannot be used: must be a directory that this user can write",
    )


def test_an_unreadable_certificate_without_its_key_is_two_faults() -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings({"manager_cert_file": "/no/such/file"}, KEY)
    assert len(caught.value.faults) == 2


@pytest.mark.process
def test_the_command_prints_a_line_for_each_fault(tmp_path: Path) -> None:
    wrong = {variable: text for variable, text, _ in FAULTS}
    ended = run(cwd=tmp_path, **wrong)
    assert ended.code == 78
    faults = [
        f"{variable} is {text!r} (in the environment): must be {accepted}"
        for variable, text, accepted in FAULTS
    ]
    missing = [line for line in ended.errors.splitlines() if "AGENT_KEY is not set" in line]
    lines = [f"agent-run: {fault}" for fault in faults]
    assert sorted(ended.errors.splitlines()) == sorted(lines + missing)
    assert len(missing) == 1
    assert ended.output == ""


def test_every_default_is_accepted_and_an_empty_value_means_the_default() -> None:
    empty = {setting.name: "" for setting in SETTINGS}
    checked = read_settings(empty, KEY)
    assert checked == read_settings({}, KEY)
    assert checked.manager_url == "http://localhost:8000"
    assert (checked.heartbeat_interval, checked.claim_interval) == (5, 1)
    assert checked.max_bitrate is None
    assert checked.allowed_targets is None
    assert checked.status_address is None


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    certificate = tmp_path / "cert.pem"
    certificate.touch()
    with pytest.raises(ConfigError, match="MANAGER_CERT_FILE and MANAGER_CERT_KEY_FILE"):
        read_settings({"manager_cert_file": str(certificate)}, KEY)
    both = {"manager_cert_file": str(certificate), "manager_cert_key_file": str(certificate)}
    assert read_settings(both, KEY).manager_cert_file == certificate


def agent_name(*arguments: str, cwd: Path, **variables: str) -> str:
    """The agent's name, as the command found it."""
    settings = {**KEY, "MANAGER_URL": NO_MANAGER, **variables}
    ended = run("--check", *arguments, cwd=cwd, **settings)
    first = ended.output.splitlines()[0]
    assert first.endswith(", key is set"), ended
    return first.removesuffix(", key is set").rpartition(" ")[2]


@pytest.mark.process
def test_a_flag_overrides_the_environment_which_overrides_the_env_file(tmp_path: Path) -> None:
    (tmp_path / "other.env").write_text("AGENT_NAME=of-the-env-file\n")
    flag, file = ("--agent-name", "of-the-flag"), ("--env-file", "other.env")
    assert agent_name(*flag, *file, cwd=tmp_path, AGENT_NAME="of-the-env") == "of-the-flag"
    assert agent_name(*file, cwd=tmp_path, AGENT_NAME="of-the-env") == "of-the-env"
    assert agent_name(*file, cwd=tmp_path, AGENT_NAME="") == "of-the-env-file"
    assert agent_name(cwd=tmp_path) == "agent1"


@pytest.mark.process
def test_the_file_dot_env_is_read_unless_another_is_given(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AGENT_NAME=of-dot-env\nexport LOG_LEVEL=debug\n# a note\n")
    (tmp_path / "other.env").write_text("")
    assert agent_name(cwd=tmp_path) == "of-dot-env"
    assert agent_name("--env-file", "other.env", cwd=tmp_path) == "agent1"


@pytest.mark.process
def test_an_env_file_is_taken_literally(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AGENT_NAME=a${HOME}\n")
    ended = run("--check", cwd=tmp_path, **KEY)
    assert "AGENT_NAME is 'a${HOME}'" in ended.output


@pytest.mark.process
@pytest.mark.parametrize("path", ["missing.env", "."])
def test_an_env_file_that_is_given_must_be_readable(tmp_path: Path, path: str) -> None:
    ended = run("--env-file", path, cwd=tmp_path, **KEY)
    assert ended.code == 78
    assert "--env-file" in ended.errors and path in ended.errors
    assert "Traceback" not in ended.errors


@pytest.mark.process
def test_an_env_file_must_be_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"AGENT_NAME=\xff\n")
    ended = run(cwd=tmp_path, **KEY)
    assert ended.code == 78
    assert ".env" in ended.errors and "Traceback" not in ended.errors


def test_the_state_directory_has_four_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    of_a1 = read_settings({"agent_name": "a1"}, KEY)
    assert of_a1.state == tmp_path / ".local/state/iperf-agent/a1"
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert of_a1.state == Path("/xdg/iperf-agent/a1")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    assert of_a1.state == Path("/var/lib/one")
    own = tmp_path / "own"
    assert read_settings({"state_dir": str(own)}, KEY).state == own
    assert list(tmp_path.iterdir()) == []


HOMELESS = """
import os
from agent.config.settings import read_settings
from agent.errors import ConfigError
settings = read_settings({}, {"AGENT_KEY": "canary"})
os.setuid(54321)
try:
    settings.state
except ConfigError as error:
    print(error)
"""


@pytest.mark.process
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that nobody knows")
def test_a_user_without_a_home_is_told_to_set_the_state_directory(tmp_path: Path) -> None:
    ended = run_program(
        "env", "-u", "HOME", sys.executable, "-c", HOMELESS, cwd=tmp_path, STATE_DIRECTORY=""
    )
    assert ended.output.startswith("STATE_DIR is not set"), ended
