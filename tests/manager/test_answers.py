"""Every answer to every call, played on real sockets, and what the agent does with it."""

import re
import signal
from pathlib import Path

import pytest

from agent.errors import (
    AgentUnknown,
    KeyRefused,
    ManagerAway,
    ManagerError,
    ManagerUnavailable,
    ResultTooLarge,
    TaskRefused,
    TaskReplaced,
)
from agent.manager import api as calls
from tests.support import answers
from tests.support.answering import ASK, PAGE, PLAYS, SENT, SOON, tls
from tests.support.answers import ANSWERS, CALLS, Action
from tests.support.endless import FLOODS
from tests.support.faulty_manager import Request, raw_reply, reply, well
from tests.support.harness import free_port, iperf3_server
from tests.support.impatient import impatient_agent
from tests.support.lone_agent import lone_agent
from tests.support.sockets import MakeManager, client_with

# What the error has to say where its kind alone does not tell that the play was the right one.
SAYS = {
    "200 cut short": "was cut short",
    "301 to another host": ": 301",
    "connection refused": "refuses the connection",
    "reset before the request was read": "ended the connection",
    "reset after the request was read": "ended the connection",
    "no answer": "no answer within 0.3 s",
    "one byte a second": "no answer within 0.3 s",
    "200 with another task's `created_at`": "created at 2026-01-02T03:04:09Z",
    "200 with another task's `type`": "another task 1",
    "a gigabyte that begins with the expected JSON": "not the Manager's",
    "a gigabyte of anything else": "not the Manager's",
    **dict.fromkeys(FLOODS, "the answer is too long"),
    # A slow host reads so many pieces for longer than the call may take.
    "endless chunks of one byte": "",
    "endless headers": "speaks no HTTP",
    "an endless chunk extension": "cannot be read",
    "TLS certificate for another name": "certificate is for another host",
    "TLS certificate that has expired": "certificate has expired",
    "TLS certificate of an unknown authority": "a CA that this host does not trust",
}


def leads_to(action: Action, call: str, error: ManagerError | None) -> bool:
    """Whether the client tells the rest of the agent what makes it act so."""
    match error:
        case None:
            return action is answers.DONE
        case ManagerUnavailable() | KeyRefused() if call == "heartbeat":
            return action is answers.NEXT_TICK
        case KeyRefused():
            return action is (answers.EXIT_77 if call == "register" else answers.IN_30_SECONDS)
        case ManagerUnavailable(retry_after=17) if call == "register":
            return action is answers.AGAIN_WHEN_TOLD
        case ManagerUnavailable() if call == "register":
            return action is answers.AGAIN
        case ManagerAway(retry_after=17):
            return action is answers.ALL_WAIT_WHEN_TOLD
        case ManagerAway():
            return action is answers.ALL_WAIT
        case ManagerUnavailable():
            return action is answers.AGAIN
        case AgentUnknown():
            return action is answers.EXIT_67
        case ResultTooLarge():
            return action is (answers.SMALLER if call == "result" else answers.DROPPED)
        case TaskReplaced():
            return action is answers.REPLACED
        case TaskRefused(current_status="canceled"):
            return action is answers.STOPPED
        case TaskRefused(current_status=status) if status == SENT[call]:
            return action is answers.DELIVERED
        case TaskRefused():
            return action in (answers.SET_ASIDE, answers.DROPPED)
    return False


def _marks(answer: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.process] if answer in FLOODS else []


@pytest.mark.parametrize(
    ("answer", "call", "action"),
    [
        pytest.param(answer, call, action, id=f"{answer} - {call}", marks=_marks(answer))
        for answer, row in ANSWERS.items()
        for call, action in zip(CALLS, row, strict=True)
    ],
)
def test_each_answer_to_each_call_does_what_the_table_says(
    answer: str, call: str, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    if answer in ("no answer", "one byte a second"):
        monkeypatch.setattr(calls, "LONG_POLL_WAIT", 0)
        for deadline in ("DEADLINE", "HEARTBEAT_DEADLINE", "RESULT_STALL"):
            monkeypatch.setattr(calls, deadline, SOON)
    error = None
    with PLAYS[answer]() as scene:
        try:
            ASK[call](client_with(scene.access))
        except ManagerError as raised:
            error = raised
    assert leads_to(action, call, error), repr(error)
    assert error is None or SAYS.get(answer, "") in str(error)
    assert len(scene.heard) <= 1, "the client itself tries nothing again"
    assert not (answer.startswith("TLS") and scene.heard), "the key went to a stranger"


@pytest.mark.parametrize("call", CALLS)
def test_a_manager_with_a_good_certificate_is_trusted(call: str) -> None:
    with tls() as scene:
        ASK[call](client_with(scene.access))
    assert len(scene.heard) == 1


def test_every_action_in_the_table_names_an_existing_test() -> None:
    tests = Path(__file__).parent.parent
    for row in ANSWERS.values():
        for call, action in zip(CALLS, row, strict=True):
            file, _, name = action.shown_by[call].partition("::")
            shown = re.search(rf"^def {name}\(", (tests / file).read_text(), re.MULTILINE)
            assert shown, f"{action.words}, {call}: there is no {action.shown_by[call]}"


def test_the_documentation_has_the_table_as_it_is() -> None:
    page = answers.PAGE.read_text()
    assert answers.markdown() in page
    assert answers.placed(page) == page, "run make docs"


@pytest.mark.process
def test_started_is_sent_again_until_the_manager_has_it(
    faulty: MakeManager, tmp_path: Path
) -> None:
    port = free_port()
    payload = {"server_ip": "127.0.0.1", "port": port, "time": 60}
    task = {"id": 1, "type": "iperf_client_run", "payload": payload}

    def answer(request: Request) -> bytes:
        if request.call == "claim" and manager.calls().count("claim") == 1:
            return reply({"task": task})
        if request.call == "started" and manager.calls().count("started") == 1:
            return raw_reply(PAGE, 503)
        return well(request)

    manager = faulty(answer)
    with iperf3_server(port), lone_agent(manager.url, tmp_path):
        manager.wait_for(lambda: manager.calls().count("started") == 2)
        seen = manager.calls().count("heartbeat")
        manager.wait_for(lambda: manager.calls().count("heartbeat") > seen + 3)
    started = [request for request in manager.requests if request.call == "started"]
    assert len(started) == 2
    assert len({request.headers["idempotency-key"] for request in started}) == 1
    assert "result" not in manager.calls()


@pytest.mark.process
def test_a_retry_after_beyond_the_register_timeout_ends_the_agent_with_69(
    faulty: MakeManager, tmp_path: Path
) -> None:
    manager = faulty(lambda _: raw_reply(PAGE, 503, Retry_After="300"))
    with lone_agent(manager.url, tmp_path) as agent:
        assert agent.exit_code() == 69
    assert manager.calls() == ["register"]


@pytest.mark.process
def test_heartbeats_ignore_retry_after(faulty: MakeManager, tmp_path: Path) -> None:
    manager = faulty(
        lambda request: (
            raw_reply(PAGE, 429, Retry_After="300")
            if request.call == "heartbeat"
            else well(request)
        )
    )
    with lone_agent(manager.url, tmp_path):
        manager.wait_for(lambda: manager.calls().count("heartbeat") == 4)


@pytest.mark.process
def test_a_key_that_a_later_registration_refuses_does_not_end_the_agent(
    faulty: MakeManager, tmp_path: Path
) -> None:
    def answer(request: Request) -> bytes:
        if request.call == "heartbeat" and manager.calls().count("register") == 1:
            return raw_reply(PAGE, 502)
        if request.call == "register" and manager.calls().count("register") > 1:
            return reply({"detail": {"error": "invalid_agent_key"}}, 401)
        return well(request)

    manager = faulty(answer)
    with impatient_agent(manager.url, tmp_path) as agent:
        agent.wait_for("the Manager refuses the key")
        seen = manager.calls().count("heartbeat")
        manager.wait_for(lambda: manager.calls().count("heartbeat") > seen + 3)
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
    # It is due for the next call, and for the next heartbeat: each tries it once in 30 s.
    assert 2 <= manager.calls().count("register") <= 3
