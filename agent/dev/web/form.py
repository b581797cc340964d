"""The form that starts a test: what it holds, what is wrong about it, and the start."""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from agent.dev.errors import Conflict, Refused
from agent.dev.store.records import ManagedAgent, Parallel, Plan, Port, Seconds, Test
from agent.dev.store.store import Store
from agent.dev.web.rows import under_way

# What the API calls a direction.
OPTIONS = {"send": {}, "reverse": {"reverse": True}, "both": {"bidir": True}}
FAULTS = {
    "client_agent_id": "Choose a client from the list.",
    "server_agent_id": "Choose a server from the list.",
    "direction": "Choose a direction from the list.",
    "protocol": "Choose TCP or UDP.",
    "parallel": "Streams must be a whole number from 1 to 128.",
    "time_seconds": "Seconds must be a whole number from 1 to 86400.",
    "server_port": "Port must be a whole number from 1 to 65535.",
}


class TestForm(Struct):
    """The form that starts a test."""

    client_agent_id: int
    server_agent_id: int
    direction: Literal["send", "reverse", "both"]
    protocol: Literal["tcp", "udp"]
    parallel: Parallel
    time_seconds: Seconds
    server_port: Port


class Fault(Struct):
    """Why a form was not taken, in words and as an HTTP status; `field` is the one to mend."""

    words: str
    status: int
    field: str = ""


def start_test(store: Store, values: dict[str, str]) -> Test | Fault:
    """Start the test that the form describes, or say what is wrong about it."""
    try:
        return _start(store, msgspec.convert(values, TestForm, strict=False))
    except msgspec.ValidationError as error:
        # It ends with the field's name, as in: Expected `int` <= 128 - at `$.parallel`
        field = next(name for name in FAULTS if f"{name}`" in str(error))
        return Fault(FAULTS[field], 422, field)
    except Refused as error:
        return Fault(f"{error}.", error.status)


def first_values(store: Store) -> dict[str, Any]:
    """The form for a first test, from the last agent that is online to the first one."""
    online = [agent.id for agent in store.agents.find("online")] or [0]
    return {
        "client_agent_id": online[-1],
        "server_agent_id": online[0],
        "direction": "send",
        "protocol": "tcp",
        "parallel": 1,
        "time_seconds": 10,
        "server_port": 5201,
    }


def values_of(store: Store, test: Test) -> dict[str, Any]:
    """The form as it would start this test again."""
    payload = store.tasks.get(test.client_task_id).payload
    ways = (
        way for way, options in OPTIONS.items() if options and options.items() <= payload.items()
    )
    return {
        "client_agent_id": test.client_agent_id,
        "server_agent_id": test.server_agent_id,
        "direction": next(ways, "send"),
        "protocol": "udp" if test.udp else "tcp",
        "parallel": test.parallel,
        "time_seconds": test.time_seconds,
        "server_port": test.server_port,
    }


def _start(store: Store, plan: TestForm) -> Test:
    """Start an exercise of this one test; raises Refused, and then leaves none behind."""
    client, server = store.agents.get(plan.client_agent_id), store.agents.get(plan.server_agent_id)
    for agent in (client, server):
        _check_free(store, agent)
    exercise = store.exercises.create(f"page: {client.name} to {server.name}", plan.time_seconds)
    try:
        new = store.exercises.add_test(
            exercise.id,
            Plan(
                server_agent_id=server.id,
                client_agent_id=client.id,
                server_port=plan.server_port,
                udp=plan.protocol == "udp",
                parallel=plan.parallel,
                options=OPTIONS[plan.direction],
            ),
        )
    except Refused:
        store.exercises.stop(exercise.id)
        raise
    store.exercises.start(exercise.id)
    return new.test


def _check_free(store: Store, agent: ManagedAgent) -> None:
    """Raise Conflict when the agent is disabled, or takes part in a test that goes on: the end of
    an exercise stops all that its agents run, and that would be the new test too.
    """
    if agent.disabled:
        raise Conflict("agent_disabled", f"{agent.name!r} is disabled")
    for test in store.exercises.tests():
        if agent.id in (test.client_agent_id, test.server_agent_id) and under_way(store, test):
            message = f"{agent.name!r} takes part in test {test.id}: wait for its end, or stop it"
            raise Conflict("agent_busy", message)
