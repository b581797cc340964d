"""The form that starts a test: what its fields may have, and the start."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from agent.dev.errors import Misfit, Refused
from agent.dev.store.records import ManagedAgent, Parallel, Plan, Port, Seconds, Test
from agent.dev.store.store import Store

_AgentId = Annotated[int, Meta(ge=1)]

# What each direction adds to the client's payload.
DIRECTIONS: dict[str, dict[str, Any]] = {
    "send": {},
    "reverse": {"reverse": True},
    "both": {"bidir": True},
}
# What is said of a field that has something else.
_ACCEPTED = {
    "client_agent_id": "Choose a client from the list",
    "server_agent_id": "Choose a server from the list",
    "direction": "Choose a direction from the list",
    "protocol": "Choose a protocol from the list",
    "parallel": "Streams must be a whole number from 1 to 128",
    "time_seconds": "Seconds must be a whole number from 1 to 86400",
    "server_port": "Port must be a whole number from 1 to 65535",
}


class TestForm(Struct):
    """The form as a browser sends it."""

    client_agent_id: _AgentId
    server_agent_id: _AgentId
    direction: Literal["send", "reverse", "both"]
    protocol: Literal["tcp", "udp"]
    parallel: Parallel
    time_seconds: Seconds
    server_port: Port


def values_of(store: Store, test: Test | None) -> dict[str, Any]:
    """The form that starts this test again, or the first one between agents that are online."""
    if test:
        payload = store.tasks.get(test.client_task_id).payload
        way = "both" if payload.get("bidir") else "reverse" if payload.get("reverse") else "send"
        protocol = "udp" if test.udp else "tcp"
        return {**msgspec.structs.asdict(test), "direction": way, "protocol": protocol}
    online = [agent.id for agent in store.agents.find("online")] or [0]
    first = TestForm(online[-1], online[0], "send", "tcp", 1, 10, 5201)
    return msgspec.structs.asdict(first)


def start_test(store: Store, values: dict[str, str]) -> Test:
    """Start the test that the form describes.

    Raises Refused, and then leaves nothing behind; Misfit names the `field` to correct.
    """
    try:
        complete = {**dict.fromkeys(_ACCEPTED, ""), **values}
        form = msgspec.convert(complete, TestForm, strict=False)
    except msgspec.ValidationError as error:
        # Its message ends with the path, as in "at `$.parallel`".
        field = str(error).rpartition("$.")[2].rstrip("`")
        raise Misfit(_ACCEPTED[field], field) from error
    client, server = _enabled(store, form.client_agent_id), _enabled(store, form.server_agent_id)
    exercise = store.exercises.create(f"page: {client.name} to {server.name}", form.time_seconds)
    udp, options = form.protocol == "udp", DIRECTIONS[form.direction]
    plan = Plan(server.id, client.id, form.server_port, udp, form.parallel, options=options)
    try:
        new = store.exercises.add_test(exercise.id, plan)
    except Refused:
        store.exercises.stop(exercise.id)
        raise
    store.exercises.start(exercise.id)
    return new.test


def _enabled(store: Store, agent_id: int) -> ManagedAgent:
    agent = store.agents.get(agent_id)
    if agent.disabled:
        raise Refused(409, "agent_disabled", f"{agent.name!r} is disabled")
    return agent
