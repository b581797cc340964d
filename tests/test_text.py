"""Texts that no encoder takes, and what is made of them."""

import json

import msgspec
import pytest

from agent.protocol import Claimed, Origin, Outcome, Report, Task
from agent.state.message import Message
from agent.text import encodable, hidden, map_texts, printable, shortened, to_json

LATIN_1 = "/opt/caf\udce9/iperf3"


def test_what_is_no_utf_8_is_shown_as_an_escape_and_all_else_stays() -> None:
    assert encodable(LATIN_1) == "/opt/caf\\udce9/iperf3"
    assert encodable("café\n\ud800") == "café\n\\ud800"


@pytest.mark.parametrize("text", ["café", "a b", "", "C:\\x", "日本"])
def test_what_a_terminal_just_shows_is_printed_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nok", "a\\nok"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}", "\\u202e"),
        (LATIN_1, "/opt/caf\\udce9/iperf3"),
    ],
)
def test_what_would_steer_a_terminal_is_printed_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_texts_of_a_value_are_changed_and_the_names_in_it_stay() -> None:
    value = {"a": ["b", ("c", 1, None, True)], "d": {"e": 0.5, "f": Report}}
    changed = map_texts(str.upper, value)
    assert changed == {
        "a": ["B", ["C", 1, None, True]],
        "d": {"e": 0.5, "f": str(Report).upper()},
    }


def test_json_that_can_be_encoded_is_that_of_msgspec() -> None:
    report = Report(argv=["/opt/café/iperf3"], attempts=1)
    assert to_json(report) == msgspec.json.encode(report)


def test_a_result_with_a_name_that_is_no_utf_8_is_encoded_in_all_its_parts() -> None:
    task = Task(7, "iperf_client_run", msgspec.Raw(b'{"port":  5201}'))
    claimed = Claimed(task, Origin("http://m", 1, ""), "key")
    report = Report(argv=[LATIN_1, "-c"], attempts=2)
    outcome = Outcome("failed", report, 1, f"{LATIN_1} cannot be run", {"started": True})
    text = to_json(Message(claimed, outcome, number=3))
    assert b'"payload":{"port":  5201}' in text
    found = json.loads(text)["outcome"]
    assert found["stderr"] == "/opt/caf\\udce9/iperf3 cannot be run"
    assert found["report"] == {"argv": ["/opt/caf\\udce9/iperf3", "-c"], "attempts": 2}
    assert (found["answer"], found["exit_code"]) == ({"started": True}, 1)
    read = msgspec.json.decode(text, type=Message).outcome
    assert read and read.report.attempts == 2


def test_a_text_is_shortened_only_if_it_is_too_long() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "abc... (4 characters)"


@pytest.mark.parametrize("secret", ["plain", 'a"b\\c', "it's", "caf\u00e9", "a\tb"])
def test_a_secret_is_hidden_however_it_is_written(secret: str) -> None:
    assert hidden(secret, f"refused: {secret}") == "refused: [hidden]"
    for form in (json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret)):
        assert hidden(secret, f"refused: {form}") == f"refused: {form[0]}[hidden]{form[-1]}"
    assert hidden("", "nothing is secret") == "nothing is secret"
