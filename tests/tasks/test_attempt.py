"""Who uses a server that was busy, as far as the agent's own tasks tell."""

from datetime import UTC, datetime

import pytest

from agent.registry import Entry, TaskRegistry
from agent.tasks import attempt
from agent.tasks.attempt import user_of_server
from tests.support.outbox import claimed

SINCE = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
# An address for documentation (RFC 5737): no host has it.
ELSEWHERE = "192.0.2.7"


def entered(registry: TaskRegistry, task_type: str, number: int, peer: str = "") -> Entry:
    """A task on port 5201 that runs."""
    entry = registry.enter(claimed(number, task_type))
    entry.port, entry.pid = 5201, 1
    entry.peer = (peer, SINCE) if peer else None
    return entry


def words(target: str, *tasks: tuple[str, str]) -> str:
    """What a client of `target` is told, beside tasks of a type whose test is with a peer."""
    registry = TaskRegistry()
    for number, (task_type, peer) in enumerate(tasks, 1):
        entered(registry, task_type, number, peer)
    return user_of_server(registry, entered(registry, "iperf_client_run", 99), target)


def test_a_client_of_the_same_server_uses_it() -> None:
    told = words(ELSEWHERE, ("iperf_client_run", "127.0.0.1"), ("iperf_client_run", ELSEWHERE))
    assert told == "this agent's task 2 has used it since 2026-03-04T05:06:07.000Z"


def test_a_server_of_this_host_names_its_client() -> None:
    told = words("127.0.0.1", ("iperf_server_start", ELSEWHERE))
    assert told == f"this agent's task 1 has served {ELSEWHERE} since 2026-03-04T05:06:07.000Z"


@pytest.mark.parametrize("target", [ELSEWHERE, "localhost"])
def test_a_server_of_the_same_port_on_another_host_is_another_one(target: str) -> None:
    assert words(target, ("iperf_server_start", "127.0.0.1")) == ""


def test_nobody_is_named_where_nobody_is_seen() -> None:
    assert words("127.0.0.1", ("iperf_server_start", ""), ("iperf_client_run", "")) == ""


def test_a_host_that_cannot_tell_its_addresses_costs_no_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_: str) -> None:
        raise OSError("no descriptor is free")

    monkeypatch.setattr(attempt, "interface_of", fails)
    assert words("127.0.0.1", ("iperf_server_start", ELSEWHERE)) == ""
