"""State directories that a released agent left are taken over whole, and given back.

tests/support/record_state.py recorded them: each is of an agent that was killed in the scene that
the directory is named after.
"""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.errors import ErrorClass
from agent.process.identity import identify
from agent.protocol import AgentRecord, Claimed, Figures, Origin, Outcome, Report, Task
from agent.state.directory import StateDirectory
from agent.state.journal import ChildRecord
from agent.state.ledger import Ledger
from agent.state.message import Message
from tests.support import version_0_1_0
from tests.support.faulty_manager import Request, reply, well
from tests.support.harness import AgentProcess
from tests.support.outbox import change, with_document
from tests.support.record_state import (
    CREATED_AT,
    DATA,
    MANAGER_URL,
    REGISTERED,
    agent_variables,
    results,
)
from tests.support.sockets import MakeManager

RELEASES = sorted(path.name for path in DATA.iterdir())
LEFT_EMPTY = ("children", "outbox", "rejected")
RESTARTED = "interrupted: the agent restarted"
REFUSED = "Connection refused"
# Of each task: its number, the status, what the agent says of its end, and whether the result has
# a document of iperf3's.
SCENES = {
    "claimed": {(1, "failed", RESTARTED, False)},
    "running": {(1, "failed", RESTARTED, False)},
    "streaming": {(1, "failed", RESTARTED, True)},
    "reported": {(1, "succeeded", RESTARTED, False)},
    "served": {(1, "succeeded", "", True), (1, "succeeded", RESTARTED, True)},
    "waiting": {(1, "succeeded", "", True), (2, "failed", REFUSED, True)},
    "settled": {(1, "succeeded", "", True)},
}


def answer(request: Request) -> bytes:
    """What the Manager answers to whom it knows already."""
    return reply(REGISTERED) if request.call == "register" else well(request)


def seen(request: Request) -> tuple[int, str, str, bool]:
    """A result as SCENES has it."""
    body: Any = request.json()
    words = body["stderr"] or body["result"]["agent"].get("ended", "")
    if REFUSED in words:
        words = REFUSED
    return int(request.path.split("/")[-2]), body["status"], words, "end" in body["result"]


@pytest.mark.process
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("release", RELEASES)
def test_what_a_released_agent_left_reaches_the_manager_once(
    release: str, scene: str, faulty: MakeManager, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    shutil.copytree(DATA / release / scene, state)
    manager = faulty(answer)
    agent = AgentProcess(cwd=tmp_path, **agent_variables(manager, state))
    try:
        manager.wait_for(lambda: {seen(request) for request in results(manager)} >= SCENES[scene])
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
    finally:
        agent.close()
    assert sorted(map(seen, results(manager))) == sorted(SCENES[scene])
    # What waited is sent with the Idempotency-Key that its first attempts had.
    keys = [request.headers["idempotency-key"] for request in results(manager)]
    for record in (DATA / release / scene).glob("outbox/*.result"):
        assert any(key in record.read_text() for key in keys)
    assert not [path for below in LEFT_EMPTY for path in (state / below).iterdir()]


@pytest.mark.parametrize("registered", [CREATED_AT, "2026-11-28 20:00:00+00:00", None])
def test_what_this_version_leaves_is_read_by_0_1_0(directory: Path, registered: str | None) -> None:
    """Whoever goes back to it loses no result, no task and no claim."""
    ledger = Ledger(StateDirectory(directory))
    journal, state = ledger.journal, ledger.state
    origin = Origin.of(MANAGER_URL, AgentRecord(1, registered))
    tasks = [
        Claimed(Task(number, kind, created_at=CREATED_AT), origin, f"key {number}")
        for number, kind in enumerate(["iperf_client_run"] * 4 + ["iperf_server_start"] * 2)
    ]
    for each in tasks:
        journal.record_claim(each)
    report = Report(version="2", argv=["iperf3"], attempts=2, error_class=ErrorClass.PEER_LOST)
    change(journal, tasks[0], child=ChildRecord(identify(os.getpid()), report))
    replacing = msgspec.structs.replace(
        tasks[1], task=Task(1, "kill_all", created_at="2027-01-01T00:00:00Z"), key="key 1 again"
    )
    journal.record_claim(replacing)
    outcomes = {
        2: with_document(state.children / "2.json", b'{"end":{"sum":1}}'),
        3: Outcome("failed", report, exit_code=1, stderr="lost", figures=Figures(sent=1.5)),
        4: Outcome("succeeded", report, answer={"started": True, "pid": 77}, final=False),
        5: Outcome("succeeded", report, answer={"started": True, "pid": 78}, final=False),
    }
    messages = {
        number: message_of(ledger, tasks[number], each) for number, each in outcomes.items()
    }
    ledger.settle(messages[3])
    ledger.settle(messages[5])
    journal.sync()

    assert (directory / "format").read_text() == "1\n"
    key, known, settled = version_0_1_0.read_journal(directory / "journal")
    assert key == journal.claim_key and settled == {"key 3"}
    assert [each.claimed.task.id for each in known.values()] == [0, 1, 2, 4, 5, 1]
    assert known["key 5"].reported and not known["key 4"].reported
    child = known["key 0"].child
    assert child and child.identity and child.identity.pid == os.getpid()
    assert (child.report.attempts, child.report.error_class) == (2, "peer_lost")
    life = version_0_1_0.Life(MANAGER_URL, 1, (registered or "").replace(" ", "T")[:19])
    assert {each.claimed.life for each in known.values()} == {life}
    parcels = [version_0_1_0.read_parcel(path) for path in sorted(state.outbox.glob("*.result"))]
    assert [parcel.claimed.task.id for parcel in parcels] == [2, 4]
    assert [parcel.idempotency_key for parcel in parcels] == [
        messages[number].idempotency_key for number in (2, 4)
    ]
    assert parcels[0].outcome.document and not parcels[0].outcome.document.path
    assert parcels[1].outcome.answer == {"started": True, "pid": 77}
    assert {parcel.claimed.life for parcel in parcels} == {life}
    done = [version_0_1_0.read_parcel(path) for path in sorted(state.outbox.glob("*.settled"))]
    assert [(each.claimed.key, each.outcome.final) for each in done] == [
        ("key 3", True),
        ("key 5", False),
    ]
    assert done[0].outcome.figures and done[0].outcome.figures.sent == 1.5


def message_of(ledger: Ledger, task: Claimed, outcome: Outcome) -> Message:
    """An outcome that waits."""
    message = Message(task, outcome, number=ledger.spool.next_number())
    ledger.save(message)
    return message
