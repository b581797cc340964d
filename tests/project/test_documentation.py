"""The documents: settings, exit codes and log lines match the code, and links lead somewhere."""

import ast
import os
import re
from io import StringIO
from pathlib import Path

import click
import pytest
from dotenv import dotenv_values

from agent import errors
from agent.cli import command
from agent.config.key import PLACEHOLDER_KEY
from agent.config.settings import SETTINGS
from agent.protocol import PAYLOADS
from tests.support.command import run
from tests.support.harness import ROOT

README = ROOT / "README.md"
EXAMPLE = ROOT / "env.example"
PAGES = [path for place in (".", "docs", "benchmarks") for path in (ROOT / place).glob("*.md")]
SECRETS = {"AGENT_KEY": "(none)", "AGENT_KEY_FILE": "(none)"}


def table(first_heading: str) -> list[list[str]]:
    """The rows of the README's table that starts with this heading, without backquotes."""
    lines = README.read_text().splitlines()
    rows = lines[next(i for i, line in enumerate(lines) if line.startswith(first_heading)) + 2 :]
    end = next((i for i, row in enumerate(rows) if not row.startswith("|")), len(rows))
    return [[cell.strip().strip("`") for cell in row.split("|")[1:-1]] for row in rows[:end]]


def example() -> dict[str, str | None]:
    """The variables of env.example, including those in comments."""
    text = re.sub(r"^# (?=[A-Z0-9_]+=)", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    names = re.findall(r"^([A-Z0-9_]+)=", text, flags=re.MULTILINE)
    assert len(names) == len(set(names)), "a variable stands there twice"
    return dotenv_values(stream=StringIO(text))


def settings() -> dict[str, tuple[str, str]]:
    """The flag and the default of each variable in the code."""
    flags = {p.metavar: p.opts[0] for p in command.command.params if isinstance(p, click.Option)}
    return {each.variable: (flags[each.variable], each.default) for each in SETTINGS}


def test_every_setting_has_a_flag_of_the_same_name() -> None:
    for variable, (flag, _) in settings().items():
        assert flag == f"--{variable.lower().replace('_', '-')}"


def test_the_readme_lists_every_setting_with_its_flag_and_default() -> None:
    rows = {row[0]: row for row in table("| variable |")}
    listed = {variable: row[1] for variable, row in rows.items()}
    assert listed == {**SECRETS, **{name: flag for name, (flag, _) in settings().items()}}
    defaults = {variable: rows[variable][2] for variable in settings()}
    assert defaults == {name: default for name, (_, default) in settings().items()}


def test_the_example_lists_every_setting_with_its_default() -> None:
    defaults = {name: default for name, (_, default) in settings().items()}
    secrets = {"AGENT_KEY": PLACEHOLDER_KEY, "AGENT_KEY_FILE": ""}
    assert example() == {**secrets, **defaults}


@pytest.mark.process
def test_the_example_lacks_only_a_key(tmp_path: Path) -> None:
    ended = run("--env-file", str(EXAMPLE), cwd=tmp_path, HOME=str(tmp_path))
    assert ended.code == 78
    (line,) = ended.errors.splitlines()
    assert "AGENT_KEY is still the example value" in line


def test_the_readme_lists_the_exit_codes_of_the_command() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.AgentError)}
    assert [int(row[0]) for row in table("| code |")] == sorted({os.EX_OK, *codes})


@pytest.mark.parametrize(
    ("page", "heading"), [("docs/operations.md", "| line |"), ("README.md", "| what you see |")]
)
def test_every_line_of_the_log_that_is_explained_is_in_the_code(page: str, heading: str) -> None:
    texts = [
        node.value
        for module in (ROOT / "agent").rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    rows = (ROOT / page).read_text().partition(heading)[2].partition("\n\n")[0]
    cells = "\n".join(re.findall(r"^\| (.*?) \|", rows, re.MULTILINE))
    quoted = [line for cell in re.findall(r"`([^`]+)`", cells) for line in cell.split(" … ")]
    # The code may have a placeholder where the document has a variable or a status.
    lines = [re.sub(r"^[A-Z0-9_]+ ", "", line).removesuffix(" …") for line in quoted]
    assert len(lines) > 10
    assert [line for line in lines if not any(line in text for text in texts)] == []


@pytest.mark.parametrize("kind", PAYLOADS)
def test_the_protocol_has_every_key_of_a_payload(kind: str) -> None:
    text = (ROOT / "docs" / "protocol.md").read_text().partition("## Tasks")[2]
    assert [key for key in PAYLOADS[kind].__struct_fields__ if f"`{key}`" not in text] == []


def test_every_make_target_that_is_named_exists() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    calls = re.findall(r"(?:`|^ {4})make((?: [a-z][a-z-]*)+)", text, re.MULTILINE)
    named = {target for call in calls for target in call.split()}
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"run", "test", "lint"} <= named
    assert named - {*targets} == set()


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings: lower case, hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code(text: str) -> str:
    """The text without fenced and indented blocks of code."""
    return re.sub(r"^```.*?^```$|^    [^\n]*$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if re.match(r"\w+:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken
