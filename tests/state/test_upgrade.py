"""State directories that a released agent left are taken over whole.

tests/support/record_state.py recorded them: each is of an agent that was killed in the scene that
the directory is named after.
"""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.faulty_manager import Request, reply, well
from tests.support.harness import AgentProcess
from tests.support.record_state import DATA, REGISTERED, agent_variables, results
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
