"""Every class of error that the agent can report comes with advice."""

import ast
import re
from pathlib import Path

from agent.error_classes import ADVICE
from agent.iperf3 import failures
from tests.support.harness import ROOT

PACKAGE = Path(failures.__file__).parent.parent


def reported() -> set[str]:
    """The classes that the package's own code gives its errors, and those of iperf3's words."""
    found = {error_class for _, error_class, _ in failures._CLASSES} | {failures.classify("?")[0]}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "TaskError",
                "ChildError",
            ):
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    found.add(str(first.value))
    return found


def test_there_is_advice_for_each_class() -> None:
    assert {"port_in_use", "state_full", "refused", "iperf3_missing"} <= reported()
    assert reported() <= ADVICE.keys()


def test_the_protocol_names_each_class() -> None:
    text = (ROOT / "docs/protocol.md").read_text()
    listed = text.partition("`result.agent.error_class` is for programs: ")[2].partition("\n\n")[0]
    assert re.findall(r"`(\w+)`", listed) == list(ADVICE)


def test_advice_is_a_whole_sentence() -> None:
    for words in ADVICE.values():
        assert words[0].isupper() or words.startswith("iperf3")
        assert words.endswith(".")
