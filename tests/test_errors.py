"""The classes of error: complete, documented, and read from any version's records."""

import ast
import re
from pathlib import Path

import msgspec
import pytest

import agent
from agent.errors import ErrorClass
from agent.protocol import Report
from tests.support.harness import ROOT


def used() -> set[str]:
    """The members of ErrorClass that the package's code names."""
    (package,) = agent.__path__
    return {
        node.attr
        for path in Path(package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "ErrorClass"
    }


def test_the_code_uses_the_classes_that_there_are() -> None:
    assert used() == set(ErrorClass.__members__)


def test_the_protocol_names_each_class() -> None:
    text = (ROOT / "docs/protocol.md").read_text()
    listed = text.partition("`result.agent.error_class` is for programs: ")[2].partition("\n\n")[0]
    assert re.findall(r"`(\w+)`", listed) == list(ErrorClass)


@pytest.mark.parametrize("error_class", ErrorClass)
def test_advice_is_a_whole_sentence(error_class: ErrorClass) -> None:
    assert error_class.advice[0].isupper() or error_class.advice.startswith("iperf3")
    assert error_class.advice.endswith(".")


@pytest.mark.parametrize("error_class", ErrorClass)
def test_a_class_is_written_as_its_value_and_read_again(error_class: ErrorClass) -> None:
    written = msgspec.json.encode(Report(error_class=error_class))
    assert written == b'{"error_class":"%s"}' % error_class.value.encode()
    assert msgspec.json.decode(written, type=Report).error_class is error_class


def test_a_report_without_a_class_has_no_such_key() -> None:
    assert msgspec.json.encode(Report()) == b"{}"
    assert msgspec.json.decode(b"{}", type=Report).error_class is None


def test_an_unknown_class_is_read_as_other() -> None:
    read = msgspec.json.decode(b'{"error_class":"of_next_year"}', type=Report)
    assert read.error_class is ErrorClass.OTHER
