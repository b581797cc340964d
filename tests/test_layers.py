"""What import-linter cannot hold: who starts children, and that the docs name every room."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import agent
from tests.harness import ROOT

PACKAGE = Path(agent.__file__).parent
# Not held by import-linter, to which `gevent.subprocess` is all of gevent.
WAYS_TO_START_CHILDREN = {"subprocess", "gevent.subprocess"}


def imported(module: Path) -> Iterator[str]:
    """Every dotted name that the module imports."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_only_process_can_start_children() -> None:
    users = {
        str(module.relative_to(PACKAGE))
        for module in PACKAGE.rglob("*.py")
        if WAYS_TO_START_CHILDREN.intersection(imported(module))
    }
    assert users == {"process.py"}


def floors() -> list[set[str]]:
    """The rooms on each floor, from the top down, as import-linter is told."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return [set(layer.split(" | ")) for layer in layers]


def test_the_design_lists_every_room_from_the_top_down() -> None:
    text = (ROOT / "docs/design.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    rooms = [re.findall(r"`(\w+)/?`", row) for row in rows]
    found = [room for row in rooms for room in row]
    floor_of = {room: number for number, floor in enumerate(floors()) for room in floor}
    assert sorted(found) == sorted(floor_of)
    heights = [floor_of[room] for room in found]
    assert heights == sorted(heights)
