"""The version: pyproject.toml states it, and the command adds the commit of a git tree."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from agent import __version__
from tests.support.command import NO_MANAGER, run, run_program
from tests.support.harness import ROOT

pytestmark = pytest.mark.process

GIT = shutil.which("git") or ""
needs_git = pytest.mark.skipif(not GIT, reason="git is not installed here")
# It answers as git would, and writes down that it was asked.
FALSE_GIT = """#!/bin/sh
echo asked >>'{notes}'
echo '{answer}'
"""


@pytest.fixture(name="copy")
def fixture_copy(tmp_path: Path) -> Path:
    """A directory with a copy of the package and nothing else."""
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "agent", copy / "agent", ignore=ignored)
    return copy


def make_project(copy: Path, version: str) -> None:
    """Make the copy a source tree of that version."""
    text = (ROOT / "pyproject.toml").read_text()
    stated = f'\nversion = "{__version__}"\n'
    assert text.count(stated) == 1
    (copy / "pyproject.toml").write_text(text.replace(stated, f'\nversion = "{version}"\n'))


def git(copy: Path, *arguments: str) -> str:
    """What git says when it works in the copy."""
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.com")
    ended = run_program(GIT, "-C", str(copy), *who, *arguments, cwd=copy)
    assert ended.code == 0, ended.errors
    return ended.output.strip()


def commit(copy: Path) -> str:
    """Make the copy a git tree; returns the short hash of its commit."""
    git(copy, "init", "--quiet")
    git(copy, "add", ".")
    git(copy, "commit", "--quiet", "--message=All of it")
    return git(copy, "rev-parse", "--short", "HEAD")


def shown(copy: Path, **variables: str) -> str:
    """What the copy's `--version` shows in another directory."""
    ended = run("--version", cwd=copy.parent, PYTHONPATH=str(copy), **variables)
    assert (ended.code, ended.errors) == (0, "")
    (found,) = re.findall(r"\Aagent-run, version (.+)\n\Z", ended.output)
    return str(found)


def put_false_git(directory: Path, answer: str) -> tuple[str, Path]:
    """A PATH that leads to a false git first, and the file where that notes each call."""
    notes = directory / "notes"
    program = directory / "bin" / "git"
    program.parent.mkdir()
    program.write_text(FALSE_GIT.format(notes=notes, answer=answer))
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}", notes


def test_a_source_tree_has_the_version_that_its_project_file_states(copy: Path) -> None:
    make_project(copy, "7.8.9")
    assert shown(copy) == "7.8.9"


@needs_git
def test_a_git_tree_shows_its_commit_too(copy: Path) -> None:
    make_project(copy, "7.8.9")
    short = commit(copy)
    assert shown(copy) == f"7.8.9+g{short}"
    # As in a hook of git's, whose variables name another repository.
    assert shown(copy, GIT_DIR="/nowhere") == f"7.8.9+g{short}"


@needs_git
def test_a_worktree_of_git_shows_its_own_commit(copy: Path, tmp_path: Path) -> None:
    make_project(copy, "7.8.9")
    commit(copy)
    other = tmp_path / "other"
    git(copy, "worktree", "add", "--quiet", str(other))
    git(other, "commit", "--quiet", "--allow-empty", "--message=One more")
    short = git(other, "rev-parse", "--short", "HEAD")
    assert shown(other) == f"7.8.9+g{short}" != shown(copy)


@needs_git
def test_a_git_tree_without_a_commit_shows_the_plain_version(copy: Path) -> None:
    make_project(copy, "7.8.9")
    git(copy, "init", "--quiet")
    assert shown(copy) == "7.8.9"


def test_without_git_a_git_tree_shows_the_plain_version(copy: Path, tmp_path: Path) -> None:
    make_project(copy, "7.8.9")
    (copy / ".git").mkdir()
    assert shown(copy, PATH=str(tmp_path)) == "7.8.9"


@needs_git
def test_an_installed_package_shows_its_own_version_alone(copy: Path) -> None:
    """Not that of a project, nor the commit, in whose directory it was installed."""
    make_project(copy, "7.8.9")
    (copy / "iperf_orchestrator_agent-6.5.4.dist-info").mkdir()
    (copy / "iperf_orchestrator_agent-6.5.4.dist-info" / "METADATA").touch()
    commit(copy)
    assert shown(copy) == "6.5.4"


def test_a_copy_of_the_package_alone_has_no_version(copy: Path) -> None:
    assert shown(copy) == "unknown"
    (copy / "pyproject.toml").write_text('[project]\nname = "another"\nversion = "3.2.1"\n')
    assert shown(copy) == "unknown"


def test_the_version_that_results_and_the_log_carry_is_plain() -> None:
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", __version__)


@pytest.mark.parametrize(
    ("argument", "code", "asked"),
    [("--version", 0, True), ("--help", 0, False), ("--check", 69, False), ("--debug", 69, False)],
)
def test_git_is_asked_for_the_version_and_for_nothing_else(
    copy: Path, tmp_path: Path, argument: str, code: int, asked: bool
) -> None:
    """The last one is a start, which nobody answers."""
    make_project(copy, "7.8.9")
    (copy / ".git").mkdir()
    path, notes = put_false_git(tmp_path, "abc1234")
    settings = {"MANAGER_URL": NO_MANAGER, "REGISTER_TIMEOUT": "1", "AGENT_KEY": "key-1"}
    ended = run(argument, cwd=copy, PATH=path, HOME=str(tmp_path), **settings)
    assert ended.code == code, ended
    assert notes.exists() is asked
    assert ("7.8.9+gabc1234" in ended.output) is asked


def test_the_version_costs_no_import_of_importlib_metadata() -> None:
    """That would take longer than all that the package itself does before it patches."""
    words = "import sys, agent; print('importlib.metadata' in sys.modules)"
    ended = run_program(sys.executable, "-c", words, cwd=ROOT)
    assert (ended.code, ended.output) == (0, "False\n")
