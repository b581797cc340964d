"""The files that a project has around its code: what there is, and that they agree."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from agent import __version__
from tests.support.command import run_program
from tests.support.harness import ROOT

# What stands at the top; a name more needs a reason.
TOP = {
    *("README.md", "LICENSE", "CHANGELOG.md", "Makefile", "Dockerfile", "pyproject.toml"),
    *("requirements.txt", "requirements-dev.txt", "env.example", "agent.py"),
    *("agent", "benchmarks", "deployment", "docs", "tests"),
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHANGES = (ROOT / "CHANGELOG.md").read_text()
# https://keepachangelog.com/en/1.1.0/
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.process
def test_the_top_directory_has_only_the_listed_names() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("only git knows what belongs to the project")
    listed = run_program(git, "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    assert listed.code == 0, listed.errors
    names = {Path(line).parts[0] for line in listed.output.splitlines()}
    assert {name for name in names if not name.startswith(".")} == TOP


def test_the_newest_release_in_the_changelog_is_the_version() -> None:
    headings = re.findall(r"^## (.+)$", CHANGES, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    releases = [
        re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", each) for each in headings[1:]
    ]
    versions = [release[1] for release in releases if release]
    assert len(versions) == len(headings) - 1
    assert versions[0] == __version__ == PROJECT["version"]
    assert versions == sorted(versions, key=lambda each: [*map(int, each.split("."))], reverse=True)


def test_the_changelog_groups_changes_by_kind() -> None:
    for release in CHANGES.split("\n## ")[1:]:
        kinds = re.findall(r"^### (.+)$", release, re.MULTILINE)
        assert kinds and set(kinds) <= KINDS
        assert len(kinds) == len(set(kinds))


def test_the_version_is_stated_in_one_place() -> None:
    assert f'"{__version__}"' not in "".join(
        path.read_text() for path in (ROOT / "agent").rglob("*.py")
    )
    assert (ROOT / "pyproject.toml").read_text().count(f'"{__version__}"') == 1


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert PROJECT["license"] == "MIT"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")


def test_an_image_has_the_files_that_the_package_names() -> None:
    """What the Dockerfile copies is what the engine may see, and pip finds what it looks for."""
    copied = {
        name
        for line in re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
        for name in line.split()
    }
    seen = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(seen) == sorted(copied)
    assert copied >= {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]}


def test_the_commit_hook_runs_make_lint_and_nothing_else() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    assert [hook["entry"] for hook in repos[0]["hooks"]] == ["make lint"]
