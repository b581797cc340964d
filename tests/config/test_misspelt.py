"""Names in the environment that are nearly a setting's, and those of other programs."""

import json
import string
from itertools import combinations
from pathlib import Path

import pytest

from agent.config.env_file import misspelt
from agent.config.key import SECRETS
from agent.config.settings import SETTINGS
from tests.support.command import NO_MANAGER, run

KNOWN = [*(setting.variable for setting in SETTINGS), *SECRETS]
# What shells, systemd, Kubernetes, CI systems, images and tools of databases set.
OF_OTHERS = """
HOME LOGNAME USER SHELL PATH PWD LANG TERM HOSTNAME MAIL EDITOR TZ LC_ALL DISPLAY TMPDIR OLDPWD
MANAGERPID MANAGERPIDFDID INVOCATION_ID JOURNAL_STREAM STATE_DIRECTORY LOGS_DIRECTORY
CACHE_DIRECTORY CREDENTIALS_DIRECTORY NOTIFY_SOCKET WATCHDOG_USEC XDG_STATE_HOME SYSTEMD_EXEC_PID
AGENT_ID AGENT_HOME AGENT_NODE AGENT_HOST AGENT_PORT AGENT_VERSION AGENT_OS AGENT_MODE AGENT_TYPE
AGENT_ROLE AGENT_TOKEN AGENT_WORKDIR AGENT_JOBNAME AGENT_MACHINENAME AGENT_TOOLSDIRECTORY
AGENT_POOL AGENT_SECRET AGENT_LABELS AGENT_HOMEDIRECTORY AGENT_BUILDDIRECTORY SSH_AGENT_PID
MANAGER_HOST MANAGER_PORT MANAGER_SERVICE_HOST MANAGER_SERVICE_PORT MANAGER_PORT_8000_TCP
MANAGER_NAME MANAGER_TOKEN MANAGER_USER MANAGER_ID API_URL API_KEY API_TOKEN API_HOST
LOG_DIR LOG_PATH LOG_NAME LOG_FILTER LOG_SIZE LOG_STYLE LOG_COLOR RUST_LOG LOG_TO_STDERR
APP_VERSION PIP_VERSION PG_VERSION PHP_VERSION NJS_VERSION NODE_VERSION CLI_VERSION PYTHON_VERSION
MPI_VERSION GO_VERSION LOCK_FILE PID_FILE TAG_FILE ENV_FILE STATIC_DIR STATS_FILE SITE_DIR DATA_DIR
EVENT_NAME PARENT_NAME JOB_FORMAT HTTP_PROXY HTTPS_PROXY NO_PROXY MAX_JOBS MAX_RETRIES GPG_KEY
""".split()


def told(*names: str) -> list[str]:
    """What is said of an environment that has these."""
    return list(misspelt(dict.fromkeys(names, "canary"), KNOWN))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MANGER_URL", "MANAGER_URL"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("MANAGER_URI", "MANAGER_URL"),
        ("MANEGAR_URL", "MANAGER_URL"),
        ("MANEGER_ULR", "MANAGER_URL"),
        ("AGENTKEY", "AGENT_KEY"),
        ("AGENT_NAEM", "AGENT_NAME"),
        ("agent_name", "AGENT_NAME"),
        ("HEARTBEAT_INTERVALL", "HEARTBEAT_INTERVAL"),
        ("STATUS_ADRES", "STATUS_ADDRESS"),
        ("MAX_TESTS_SECOND", "MAX_TEST_SECONDS"),
        ("MANAGER_CERTS_FILE", "MANAGER_CERT_FILE"),
    ],
)
def test_a_name_within_two_letters_is_told(name: str, meant: str) -> None:
    assert told(name) == [f"in the environment: {name} is ignored: did you mean {meant}?"]


def test_the_names_of_other_programs_are_not_told() -> None:
    assert told(*OF_OTHERS) == []
    assert told(*KNOWN) == []


@pytest.mark.parametrize("name", ["MNGR_URL", "LOG", "MANAGER", "URL", "X", "", "ZANAGER_URL"])
def test_what_is_further_away_is_not_told(name: str) -> None:
    assert told(name) == []


@pytest.mark.parametrize("known", KNOWN)
def test_every_letter_that_is_wrong_missing_too_much_or_swapped_is_told(known: str) -> None:
    places = range(1, len(known))
    letters = string.ascii_uppercase[::5] + "_"
    slips = {known[:at] + known[at + 1 :] for at in places}
    slips |= {known[:at] + known[at + 1] + known[at] + known[at + 2 :] for at in places[:-1]}
    slips |= {known[:at] + new + known[at + 1 :] for at in places for new in letters}
    slips |= {known[:at] + new + known[at:] for at in places for new in letters}
    two = {known[:a] + known[a + 1 : b] + known[b + 1 :] for a, b in combinations(places, 2)}
    for slip in (slips | two) - set(KNOWN) - set(OF_OTHERS):
        assert len(told(slip)) == 1, slip


def test_an_empty_variable_is_not_told() -> None:
    assert list(misspelt({"MANGER_URL": ""}, KNOWN)) == []


@pytest.mark.process
def test_a_check_warns_of_a_misspelt_variable(tmp_path: Path) -> None:
    settings = {"AGENT_KEY": "canary-77", "STATE_DIR": str(tmp_path), "MANAGER_URL": NO_MANAGER}
    ended = run("--check", cwd=tmp_path, LOGLEVEL="secret", LOG_FORMAT="json", **settings)
    assert ended.code == 69, "a warning changes no exit code"
    found = json.loads(ended.output.splitlines()[0])
    assert (found["ok"], found["fault"]) == (True, "warning")
    words = "in the environment: LOGLEVEL is ignored: did you mean LOG_LEVEL?"
    assert found["message"] == words and "secret" not in ended.output + ended.errors


@pytest.mark.process
def test_a_start_warns_of_it_in_the_log(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MAX_TASK=3\n")
    settings = {"AGENT_KEY": "canary-77", "STATE_DIR": str(tmp_path / "state")}
    more = {"MANAGER_URL": NO_MANAGER, "REGISTER_TIMEOUT": "1", "LOGLEVEL": "debug"}
    ended = run(cwd=tmp_path, LOG_FILE=str(tmp_path / "log"), **settings, **more)
    assert (ended.code, ended.errors) == (69, "")
    for text in (ended.output, (tmp_path / "log").read_text()):
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["message"] for line in lines if line["level"] == "warning"][:2] == [
            "in the environment: LOGLEVEL is ignored: did you mean LOG_LEVEL?",
            ".env line 1: MAX_TASK is ignored: did you mean MAX_TASKS?",
        ]


@pytest.mark.process
def test_a_start_that_fails_for_it_says_so(tmp_path: Path) -> None:
    ended = run(cwd=tmp_path, AGENT_KEYY="canary-77")
    assert (ended.code, ended.output) == (78, "")
    first, second = ended.errors.splitlines()
    words = "in the environment: AGENT_KEYY is ignored: did you mean AGENT_KEY?"
    assert first == f"agent-run: {words}"
    assert second.startswith("agent-run: AGENT_KEY is not set")
