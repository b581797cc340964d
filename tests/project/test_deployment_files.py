"""The files of deployment/ and the Dockerfile, compared with the code and with each other."""

import inspect
import os
import re
import tomllib
from pathlib import Path

import click
import pytest

from agent import __version__
from agent.cli import demo
from agent.config.key import CREDENTIAL, PLACEHOLDER_KEY, SECRETS
from agent.errors import AgentError
from agent.manager.api import HEALTH
from agent.status import server
from tests.support.deployment_files import (
    BY_VARIABLE,
    DEPLOYMENT,
    IMAGE,
    default,
    image_volumes,
    manifest,
    name,
)
from tests.support.harness import ROOT

UNITS = sorted(DEPLOYMENT.glob("*.service"))
COMPOSE = DEPLOYMENT / "docker-compose.yml"
CLOUD_INIT = DEPLOYMENT / "cloud-init.yaml"
DOCUMENT = ROOT / "docs" / "deployment.md"
OPERATIONS = ROOT / "docs" / "operations.md"
RELEASE = ROOT / "docs" / "release.md"
TEXTS = [ROOT / "env.example", IMAGE, DOCUMENT, OPERATIONS, RELEASE] + [
    path
    for path in sorted(DEPLOYMENT.rglob("*"))
    if path.suffix in (".service", ".yaml", ".yml", ".conf")
]
# Names in capitals that are not settings: those of other programs, the kernel and the trial.
OTHERS = re.compile(
    r"(AF|CAP|SO|DEBIAN|PIP|PYTHON|XDG|ALL|HTTPS?|NO)_\w+|STATE_DIRECTORY|ADMIN_PASSWORD"
)

NOT_FIXABLE = (os.EX_NOPERM, os.EX_CONFIG)
PORT = int(demo.STATUS_ADDRESS.rpartition(":")[2])
OLDEST_PYTHON = (3, 11)
# Sentences of the documents, as patterns, with the numbers that their groups must have.
SAID: list[tuple[Path, str, tuple[int, ...]]] = [
    (
        DOCUMENT,
        r"Exit codes (\d+) \(the Manager refused the key\) and (\d+) \(a setting is wrong\)",
        NOT_FIXABLE,
    ),
    (DOCUMENT, r"restarts the agent after exit codes (\d+) and (\d+), with growing", NOT_FIXABLE),
    (DOCUMENT, r"an agent also after exit codes (\d+) and (\d+), at most every five", NOT_FIXABLE),
    (DOCUMENT, r"otherwise the agent says so and ends with (\d+)", (os.EX_CONFIG,)),
    (DOCUMENT, r"at the Manager stops its tests and ends with (\d+)", (os.EX_NOUSER,)),
    (DOCUMENT, r"is locked: exit code (\d+)", (os.EX_CANTCREAT,)),
    (DOCUMENT, r"an agent that is stopped by a reboot ends with (\d+)", (os.EX_OK,)),
    (DOCUMENT, r"It ends with (\d+) unless all names", (click.ClickException.exit_code,)),
    (DOCUMENT, r"\| (\d+), TCP, on loopback \|", (PORT,)),
    (OPERATIONS, r"A traceback \(exit code (\d+)\)", (AgentError.exit_code,)),
    (
        OPERATIONS,
        r"Exit code (\d+) means that all is well, (\d+) that a setting is wrong .*,"
        r" (\d+) that the Manager does not answer",
        (os.EX_OK, os.EX_CONFIG, os.EX_UNAVAILABLE),
    ),
    (OPERATIONS, r"started with wrong settings ends with (\d+)", (os.EX_CONFIG,)),
    (CLOUD_INIT, r"sys\.version_info < \((\d+), (\d+)\)", OLDEST_PYTHON),
    (CLOUD_INIT, r"needs Python (\d+)\.(\d+) or newer", OLDEST_PYTHON),
]


def unit(path: Path) -> dict[str, list[str]]:
    """The section [Service] of a unit: each key with all its values."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().partition("[Service]")[2].splitlines():
        key, separator, value = line.partition("=")
        if separator and re.fullmatch("[A-Z][A-Za-z]+", key):
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_every_variable_that_is_named_is_a_setting(path: Path) -> None:
    named = set(re.findall(r"(?<![\w$-])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![\w*])", path.read_text()))
    known = {*BY_VARIABLE, *SECRETS}
    assert {word for word in named if not OTHERS.fullmatch(word)} <= known


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_every_value_that_is_given_is_accepted(path: Path) -> None:
    for variable, setting in BY_VARIABLE.items():
        for value in re.findall(rf"\b{variable}=([^\s$\"\\%]+)$", path.read_text(), re.MULTILINE):
            setting.kind.parse(value)


@pytest.mark.parametrize(("path", "words", "numbers"), SAID)
def test_every_number_in_the_documents_is_that_of_the_code(
    path: Path, words: str, numbers: tuple[int, ...]
) -> None:
    text = " ".join(path.read_text().split())
    (found,) = re.finditer(words, text)
    assert tuple(int(number) for number in found.groups()) == numbers


@pytest.mark.parametrize("path", [DOCUMENT, OPERATIONS], ids=name)
def test_every_exit_code_in_the_documents_is_compared(path: Path) -> None:
    text = " ".join(path.read_text().split())
    said = re.findall(r"(?i)\b(?:exit codes?|the codes|ends with) \d", text)
    compared = [
        words
        for where, words, _ in SAID
        if where == path and re.search("(?i)exit code|the codes|ends with", words)
    ]
    assert len(said) == len(compared)


def test_the_oldest_python_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"].startswith(f">={'.'.join(map(str, OLDEST_PYTHON))},")


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_every_version_that_is_named_is_this_one(path: Path) -> None:
    named = re.findall(
        r"(?:iperf[_-](?:orchestrator[_-])?agent[-=]+|newTag: )(\d+(?:\.\d+)+)", path.read_text()
    )
    assert set(named) <= {__version__}
    assert named or path not in (DOCUMENT, RELEASE, CLOUD_INIT)


@pytest.mark.parametrize("path", [DEPLOYMENT / "iperf-agent.service", IMAGE], ids=name)
def test_the_status_page_has_the_address_of_the_demo(path: Path) -> None:
    (address,) = re.findall(r"^[^#]*\bSTATUS_ADDRESS=([\w.:]+)", path.read_text(), re.MULTILINE)
    assert address == demo.STATUS_ADDRESS


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_every_path_that_is_probed_is_one_of_the_status_page(path: Path) -> None:
    served = re.findall(r'"(/\w+)"', inspect.getsource(server))
    assert "/livez" in served
    # The Manager has one of its own, which a check asks for.
    own = {HEALTH} if path == OPERATIONS else set()
    found = set(re.findall(r"/(?:livez?|ready\w*|health\w*|metrics)\b", path.read_text()))
    assert found <= {*served, *own}


@pytest.mark.parametrize("path", UNITS, ids=name)
def test_a_unit_does_not_restart_after_codes_that_a_restart_cannot_fix(path: Path) -> None:
    codes = {int(code) for code in unit(path)["RestartPreventExitStatus"][0].split()}
    assert codes == {os.EX_NOPERM, os.EX_CONFIG}


@pytest.mark.parametrize("path", UNITS, ids=name)
def test_a_unit_gives_the_agent_enough_time(path: Path) -> None:
    service = unit(path)
    assert int(service["TimeoutStartSec"][0]) > default("REGISTER_TIMEOUT")
    assert int(service["TimeoutStopSec"][0]) > default("SHUTDOWN_TIMEOUT")
    replaced = ("WatchdogSec", "TimeoutAbortSec", "RestartSec")
    assert sum(int(service[key][0]) for key in replaced) <= 40


@pytest.mark.parametrize("path", UNITS, ids=name)
def test_a_unit_passes_the_key_by_the_name_that_the_agent_expects(path: Path) -> None:
    credential, _, key = unit(path)["LoadCredential"][0].partition(":")
    assert credential == CREDENTIAL
    # systemd reports a missing key file before it starts the agent.
    assert f"AssertPathExists={key}" in path.read_text()


def test_cloud_init_writes_what_the_unit_reads() -> None:
    text = CLOUD_INIT.read_text()
    service = unit(DEPLOYMENT / "iperf-agent.service")
    assert service["LoadCredential"][0].partition(":")[2] in text
    assert service["EnvironmentFile"][0].lstrip("-") in text
    home = Path(service["ExecStart"][0]).parents[2]
    assert f"home={home}\n" in text
    assert PLACEHOLDER_KEY in text


def test_agents_under_compose_have_time_to_stop_and_the_volumes_of_the_image() -> None:
    services = manifest(COMPOSE)["services"]
    agents = [found for found in services.values() if found["image"] == "iperf-agent"]
    assert len(agents) == 2
    for agent in agents:
        assert int(agent["stop_grace_period"].removesuffix("s")) > default("SHUTDOWN_TIMEOUT")
        assert {volume.partition(":")[2] for volume in agent["volumes"]} == image_volumes()
        assert set(agent["environment"]) <= {*BY_VARIABLE, *SECRETS}


def test_what_the_completion_puts_on_a_host_is_named_where_it_is_uninstalled() -> None:
    sections = {
        section.partition("\n")[0]: section for section in re.split("\n##+ ", RELEASE.read_text())
    }
    put = re.findall(r"^    (?:install|ln) .* (/\S+)", sections["Shell completion"], re.MULTILINE)
    assert len(put) == 4
    assert set(put) <= set(re.findall(r"/\S+", sections["Uninstalling"]))


def test_the_links_of_the_document_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", DOCUMENT.read_text())
    assert [link for link in links if not (DOCUMENT.parent / link).exists()] == []
    linked = {(DOCUMENT.parent / link).resolve() for link in links}
    assert linked.issuperset([*UNITS, COMPOSE, IMAGE, CLOUD_INIT])
