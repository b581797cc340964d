"""The layering rule that import-linter cannot hold: to it `gevent.subprocess` is all of gevent."""

import ast
from collections.abc import Iterator
from pathlib import Path

import agent

PACKAGE = Path(agent.__file__).parent
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
