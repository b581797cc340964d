"""Two agents of one name and key, as a cloned machine makes them, and a restart, which is none."""

import signal
from datetime import timedelta
from itertools import pairwise

import pytest

from agent.dev.store import agents
from tests.support.harness import AgentProcess, Bench, free_port, until
from tests.support.status_page import ask

ONE, OTHER = "192.0.2.1", "192.0.2.2"
TOLD = "another agent has this agent's name and key"
OVER = "no other agent has this agent's name and key any more"


def agent_at(bench: Bench, address: str, state: str, page: str = "") -> AgentProcess:
    """An agent of the one name at such an address, with a state directory of its own."""
    return bench.agent(
        HEARTBEAT_INTERVAL="0.2",
        ADVERTISE_ADDRESS=address,
        STATE_DIR=str(bench.directory / state),
        STATUS_ADDRESS=page,
    )


def next_heartbeat(bench: Bench) -> None:
    """Wait for another heartbeat under the agent's name."""
    record = bench.store.agents.get(1)
    before = record.last_heartbeat
    bench.wait(lambda: record.last_heartbeat != before)


def test_both_and_the_manager_tell_of_the_other_until_it_is_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "OFFLINE_AFTER", timedelta(seconds=2))
    page = f"127.0.0.1:{free_port()}"
    url = f"http://{page}"
    one, other = agent_at(bench, ONE, "one", page), agent_at(bench, OTHER, "other")
    for agent, address in ((one, OTHER), (other, ONE)):
        line = agent.wait_for(TOLD, level="warning")
        assert line["error"].startswith(f"it reports from {address}: give each host ")
    record = bench.store.agents.get(1)
    bench.wait(lambda: record.taking_turns == [ONE, OTHER])

    assert ask(url, "/status").json()["other_instance"] == OTHER
    words = f"{TOLD}: it reports from {OTHER}"
    ready = ask(url, "/readyz")
    assert (ready.status, ready.json()["reasons"]) == (503, [words])
    until(lambda: words in ask(url, "/").body.decode().replace("&#x27;", "'"))

    other.signal(signal.SIGTERM)
    assert other.exit_code() == 0
    assert one.wait_for(OVER, level="info")["failures"] > 1
    bench.wait(lambda: not record.taking_turns)
    until(lambda: ask(url, "/readyz").status == 200)
    assert ask(url, "/status").json()["other_instance"] == ""
    assert [line["message"] for line in one.lines].count(TOLD) == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_that_is_started_again_is_no_other(bench: Bench, how: signal.Signals) -> None:
    record = bench.store.agents.get(1)
    for address in (ONE, OTHER, ONE):
        agent = agent_at(bench, address, "one")
        agent.wait_for("registered")
        for _ in range(3):
            next_heartbeat(bench)
            assert not record.taking_turns
        agent.signal(how)
        agent.exit_code()
        assert TOLD not in [line["message"] for line in agent.lines]


def test_a_manager_without_the_extension_tells_nobody(todays_bench: Bench) -> None:
    """What docs/deployment.md says of a clone there: nothing but an address that changes."""
    one, other = agent_at(todays_bench, ONE, "one"), agent_at(todays_bench, OTHER, "other")
    for agent in (one, other):
        agent.wait_for("registered")
    record = todays_bench.store.agents.get(1)
    seen: list[str | None] = []
    for _ in range(12):
        next_heartbeat(todays_bench)
        seen.append(record.ip_address)
    assert {(ONE, OTHER), (OTHER, ONE)} <= {*pairwise(seen)}
    assert not record.taking_turns
    assert TOLD not in [line["message"] for agent in (one, other) for line in agent.lines]
