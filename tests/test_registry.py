"""The registry of tasks, as they come, run and go."""

from datetime import datetime

import msgspec
import pytest

from agent.errors import ErrorClass
from agent.registry import CANCELED, Entry, Stop, TaskRegistry
from tests.support.outbox import claimed

SERVER, CLIENT, KILL = "iperf_server_start", "iperf_client_run", "kill_all"


@pytest.fixture(name="registry")
def fixture_registry() -> TaskRegistry:
    """An empty registry."""
    return TaskRegistry()


def enter(registry: TaskRegistry, *types: str) -> list[Entry]:
    """Tasks of these types, claimed in this order."""
    first = len(registry) + 1
    return [registry.enter(claimed(number, kind)) for number, kind in enumerate(types, first)]


def test_a_task_is_in_the_registry_from_its_claim_until_it_leaves(registry: TaskRegistry) -> None:
    (entry,) = enter(registry, CLIENT)
    assert registry.entries() == [entry] and len(registry) == 1
    assert not entry.gone.is_set()
    registry.leave(entry)
    assert registry.entries() == [] and len(registry) == 0
    assert entry.gone.is_set()


def test_only_start_tasks_count_as_claimed_before(registry: TaskRegistry) -> None:
    first, _, second, _, kill, _ = enter(registry, SERVER, KILL, CLIENT, "odd", KILL, CLIENT)
    assert registry.claimed_before(kill) == [first, second]
    assert registry.claimed_before(first) == []


def test_a_port_belongs_to_the_server_claimed_first(registry: TaskRegistry) -> None:
    first, client, second, third = enter(registry, SERVER, CLIENT, SERVER, SERVER)
    for entry in (first, client, second):
        entry.port = 5200
    third.port = 5201
    assert registry.server_on(5200, first) is None
    assert registry.server_on(5200, second) is first
    assert registry.server_on(5201, third) is None
    registry.leave(first)
    assert registry.server_on(5200, second) is None, "a client's port is the other side's"


def test_other_running_clients_are_those_with_a_child(registry: TaskRegistry) -> None:
    server, waiting, running, own = enter(registry, SERVER, CLIENT, CLIENT, CLIENT)
    for entry in (server, running, own):
        entry.record_start(100 + entry.task.id)
    assert registry.other_running_clients(own) == [running]
    running.record_end()
    assert registry.other_running_clients(own) == []
    assert registry.other_running_clients(waiting) == [own]


def test_there_is_a_row_for_each_running_child(registry: TaskRegistry) -> None:
    server, client, waiting, kill = enter(registry, SERVER, CLIENT, CLIENT, KILL)
    server.port, client.port, waiting.port = 5200, 5201, 5202
    server.record_start(100)
    client.record_start(101)
    kill.pid = 102
    rows = registry.rows()
    assert [(row.type, row.port, row.pid, row.task_id) for row in rows] == [
        ("server", 5200, 100, 1),
        ("client", 5201, 101, 2),
    ]
    assert datetime.fromisoformat(rows[0].started_at).tzinfo
    assert set(msgspec.to_builtins(rows[0])) == {"type", "port", "pid", "task_id", "started_at"}
    server.record_end()
    assert [row.pid for row in registry.rows()] == [101]


def test_a_cancellation_stops_only_the_task_that_it_names(registry: TaskRegistry) -> None:
    first, second, gone = enter(registry, SERVER, CLIENT, CLIENT)
    registry.leave(gone)
    registry.stop(second.claimed, CANCELED)
    registry.stop(gone.claimed, CANCELED)
    assert not first.stop.ordered.is_set()
    assert second.stop.ordered.is_set()
    assert (second.stop.error_class, second.stop.reason) == ("killed", "canceled at the Manager")


def test_the_first_reason_to_stop_stays() -> None:
    stop = Stop()
    stop.order(ErrorClass.KILLED, "stopped by kill_all")
    stop.order(ErrorClass.INTERRUPTED, "the agent was stopped")
    assert (stop.error_class, stop.reason) == ("killed", "stopped by kill_all")


def test_all_tasks_can_be_stopped_and_forced(registry: TaskRegistry) -> None:
    entries = enter(registry, SERVER, CLIENT, KILL)
    assert registry.stop_all(ErrorClass.INTERRUPTED, "the agent was stopped") == entries
    assert all(entry.stop.ordered.is_set() for entry in entries)
    assert not any(entry.stop.force.is_set() for entry in entries)
    registry.force_all()
    assert all(entry.stop.force.is_set() for entry in entries)
