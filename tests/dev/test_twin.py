"""With `--no-extensions` the dev Manager is the twin of the platform's: recorded calls, replayed.

`manager-answers.json` has what a real Manager answered, call by call: the status, and the answer
with the names of types in place of most values, and of a list its first element. Ids, keys and
names are not in it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.dev_client import DEADLINE_SECONDS, Api
from tests.support.harness import ROOT
from tests.support.manager_process import killable

RECORDED = json.loads(Path(__file__).with_name("manager-answers.json").read_text())
CALLS: dict[str, dict[str, Any]] = {call["what"]: call for call in RECORDED}

# The agents are a1, which had a test before, p, the server, and q, the client.
P = {"X-AGENT-NAME": "p", "X-AGENT-KEY": "k1", "X-API-Version": "1"}
Q = {**P, "X-AGENT-NAME": "q", "X-AGENT-KEY": "k2"}
WRONG_KEY = {**P, "X-AGENT-KEY": "wrong"}
UNKNOWN = {**P, "X-AGENT-NAME": "unknown"}
HEADERS: dict[str, dict[str, str]] = {
    **dict.fromkeys(["reg badkey", "hb badkey"], WRONG_KEY),
    **dict.fromkeys(["reg unknown", "hb unknown"], UNKNOWN),
    "reg badver": {**P, "X-API-Version": "9"},
    "reg nover": {name: value for name, value in P.items() if name != "X-API-Version"},
    **dict.fromkeys(["started other agent", "claim2", "started2"], Q),
    **dict.fromkeys(["result2 failed", "result2 again"], Q),
}
# Where a path has {id}: the agent p, the exercise f, and the task of its server or its client.
IDS = {"agents": "2", "exercises": "3", "tasks": "4", "tasks?agent_id={id}": "2"}
OTHER_IDS = {
    "ex start empty": "2",
    **dict.fromkeys(["started2", "result2 failed", "result2 again", "task", "cancel ended"], "5"),
}
BODIES: dict[str, dict[str, Any]] = {"agent create os": {"name": "q"}}
AGENTS = {"server_agent_id": 2, "client_agent_id": 3}
# What the dev Manager refuses and the platform's took is sent once more with this change, so that
# the calls after it find the same.
TAKEN_INSTEAD: dict[str, dict[str, Any]] = {
    "test bad port": {"server_port": 5701},
    "test bad parallel": {"parallel": 1},
    "result bad status": {"status": "failed"},
}


class Answer(NamedTuple):
    """The status of an answer, and its JSON: None for an empty one."""

    status: int
    content: Any


def send(api: Api, call: dict[str, Any], changes: dict[str, Any]) -> Answer:
    """Make a recorded call."""
    what, (method, path) = call["what"], call["call"].split(" ")
    kind = path.removeprefix("/v1/").removeprefix("agent/").split("/")[0]
    path = path.replace("{id}", OTHER_IDS.get(what, IDS.get(kind, "")))
    body = call.get("body")
    if body is not None:
        agents = {name: agent for name, agent in AGENTS.items() if body.get(name) == "{id}"}
        body = {**body, **agents, **BODIES.get(what, {}), **changes}
    callers = {
        "nobody": {},
        "agent": HEADERS.get(what, P),
        "admin": {"Authorization": f"Bearer {api.token}"},
        "a wrong token": {"Authorization": "Bearer wrong"},
    }
    headers = callers["agent" if what in HEADERS else call["as"]]
    answer = api.session.request(
        method, api.url + path, json=body, headers=headers, timeout=DEADLINE_SECONDS
    )
    try:
        return Answer(answer.status_code, json.loads(answer.text) if answer.text else None)
    except ValueError:
        return Answer(answer.status_code, "not JSON")


def finish_an_exercise(api: Api) -> None:
    """The recorded Manager was no new one: an operator had stopped a test of an agent."""
    api.agent("register", {"ip_address": "127.0.0.1", "operating_system": "l"})
    api.call("POST", "exercises", {"name": "old"})
    plan = {"server_agent_id": 1, "client_agent_id": 1, "server_port": 5201}
    for call, body in [("tests", plan), ("start", None), ("stop", None)]:
        assert api.call("POST", f"exercises/1/{call}", body).ok
    while (task := api.agent("tasks/claim").json()["task"])["type"] != "kill_all":
        pass
    host = dict.fromkeys(["congestion", "iperf3_version", "kernel", "version"], "x")
    result = {"killed": True, "count": 0, "agent": host}
    assert api.agent(f"tasks/{task['id']}/result", {"status": "succeeded", "result": result}).ok


@pytest.fixture(name="answers", scope="module")
def fixture_answers() -> Iterator[dict[str, Answer]]:
    """What the dev Manager answers to each of the calls, which are made in their order."""
    with killable("--no-extensions") as manager:
        finish_an_exercise(manager.api)
        answers = {}
        for what, call in CALLS.items():
            answers[what] = send(manager.api, call, {})
            if what in TAKEN_INSTEAD:
                assert send(manager.api, call, TAKEN_INSTEAD[what]).status < 400
        yield answers


def differences(recorded: Any, value: Any, place: str = "$") -> list[str]:
    """Where the JSON has not the recorded shape; for a list, where its first element has not."""
    if recorded == "a list of faults":
        recorded = [{"loc": ["str"], "msg": "str", "type": "str"}]
    if isinstance(recorded, dict) and isinstance(value, dict):
        odd = [f"{place}.{name} is in one alone" for name in recorded.keys() ^ value.keys()]
        both = [name for name in recorded if name in value]
        return odd + [
            line
            for name in both
            for line in differences(recorded[name], value[name], f"{place}.{name}")
        ]
    if isinstance(recorded, list) and isinstance(value, list) and value:
        return differences(recorded[0], value[0], f"{place}[0]")
    if recorded in (value, type(value).__name__):
        return []
    return [f"{place} is {value!r}, and was {recorded}"]


def accepted() -> dict[str, tuple[int, int]]:
    """The table of docs/protocol.md: by the call's name the platform's status, and ours."""
    page = (ROOT / "docs" / "protocol.md").read_text()
    table = page.partition("| recorded call |")[2].partition("\n\n")[0].strip()
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()[2:]]
    assert all(len(row) == 4 and row[3] for row in rows)
    return {what.split("`")[1]: (int(theirs), int(ours)) for what, theirs, ours, _ in rows}


@pytest.mark.process
@pytest.mark.parametrize("what", CALLS)
def test_a_call_is_answered_as_by_the_platform_or_as_the_docs_say(
    answers: dict[str, Answer], what: str
) -> None:
    recorded, answer = CALLS[what], answers[what]
    if what in accepted():
        assert (recorded["status"], answer.status) == accepted()[what]
    else:
        assert answer.status == recorded["status"], answer.content
        assert differences(recorded["answer"], answer.content) == []


def test_each_difference_in_the_docs_is_one_of_a_recorded_call() -> None:
    assert set(accepted()) >= set(TAKEN_INSTEAD)
    assert {what for what, (theirs, ours) in accepted().items() if theirs == ours} == set()
    assert accepted().keys() - CALLS.keys() == set()
