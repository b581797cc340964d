"""What import-linter cannot check: who starts children, and that documents match the code."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import agent
from tests.support.harness import ROOT

PACKAGE = Path(agent.__file__).parent
# import-linter cannot tell `gevent.subprocess` from the rest of gevent.
WAYS_TO_START_CHILDREN = {"subprocess", "gevent.subprocess"}


def imported(module: Path) -> Iterator[str]:
    """Every dotted name that the module imports."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_only_one_module_can_start_children() -> None:
    users = {
        str(module.relative_to(PACKAGE))
        for module in PACKAGE.rglob("*.py")
        if WAYS_TO_START_CHILDREN.intersection(imported(module))
    }
    assert users == {"process/spawn.py"}


def layers() -> list[set[str]]:
    """The modules of each layer, from the top down, as pyproject.toml has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return [set(layer.split(" | ")) for layer in found]


def test_the_design_lists_every_layer_from_the_top_down() -> None:
    text = (ROOT / "docs/design.md").read_text().partition("| layer |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (\d+) \| (`[^|]+`) \|", text, re.MULTILINE)
    found = [
        (int(layer), name) for layer, names in rows for name in re.findall(r"`(\w+)/?`", names)
    ]
    assert [layer for layer, _ in found] == sorted(layer for layer, _ in found)
    stated = [(number, name) for number, layer in enumerate(layers(), 1) for name in layer]
    assert sorted(found) == sorted(stated)


def test_every_package_states_its_own_layers() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    stated = {name for each in contracts for name in each.get("containers", [])}
    packages = {
        ".".join(("agent", *init.parent.relative_to(PACKAGE).parts))
        for init in PACKAGE.rglob("__init__.py")
    }
    assert stated == packages
    assert all(each["exhaustive"] for each in contracts if each["type"] == "layers")
    assert not any("ignore_imports" in each for each in contracts)


def test_no_class_name_is_used_twice() -> None:
    names = [
        node.name
        for module in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert sorted(names) == sorted(set(names))


def test_every_file_and_test_named_in_the_documents_exists() -> None:
    missing = []
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        named = re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|sh))(?:::(\w+))?`", page.read_text())
        for path, function in named:
            homes = (ROOT, ROOT / "tests", ROOT / "agent", ROOT / "deployment")
            found = [home / path for home in homes if (home / path).exists()]
            if not found:
                missing.append(f"{page.name}: {path}")
            elif function and not defines(found[0], function):
                missing.append(f"{page.name}: {path}::{function}")
    assert not missing


def defines(module: Path, function: str) -> bool:
    """Whether the module has a function of that name at its top level."""
    body = ast.parse(module.read_text()).body
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in body)
