"""The form that starts a test: its fields, what they may have, and the start."""

import re
from typing import Any, NamedTuple

import msgspec

from agent.dev.errors import Misfit, Refused
from agent.dev.store.records import ManagedAgent, Plan, Test
from agent.dev.store.store import Store

# What each direction adds to the client's payload.
DIRECTIONS: dict[str, dict[str, Any]] = {
    "send": {},
    "reverse": {"reverse": True},
    "both": {"bidir": True},
}
_WAYS = {"send": "client to server", "reverse": "server to client", "both": "both at once"}


class Field(NamedTuple):
    """A field has a whole number from 1 to `most`, or without that one of the `choices`.

    `first` is what it has in the first form.
    """

    label: str
    first: object
    most: int = 0
    choices: dict[str, str] = {}


def fields_of(store: Store) -> dict[str, Field]:
    """The fields by name. The agents to choose from are those that are not disabled."""
    agents = {str(agent.id): _told(agent) for agent in store.agents.find()}
    online = [agent.id for agent in store.agents.find("online")] or [0]
    return {
        "client_agent_id": Field("Client", online[-1], choices=agents),
        "server_agent_id": Field("Server", online[0], choices=agents),
        "direction": Field("Direction", "send", choices=_WAYS),
        "protocol": Field("Protocol", "tcp", choices={"tcp": "TCP", "udp": "UDP"}),
        "parallel": Field("Streams", 1, most=128),
        "time_seconds": Field("Seconds", 10, most=86400),
        "server_port": Field("Port", 5201, most=65535),
    }


def values_of(store: Store, test: Test | None) -> dict[str, Any]:
    """The form that starts this test again, or the first one between agents that are online."""
    if test is None:
        return {name: field.first for name, field in fields_of(store).items()}
    payload = store.tasks.get(test.client_task_id).payload
    way = [way for way, adds in DIRECTIONS.items() if adds.items() <= payload.items()][-1]
    protocol = "udp" if test.udp else "tcp"
    return {**msgspec.structs.asdict(test), "direction": way, "protocol": protocol}


def start_test(store: Store, values: dict[str, str]) -> Test:
    """Start the test that the form describes.

    Raises Refused, and then leaves nothing behind; Misfit names the `field` to correct.
    """
    fields = fields_of(store).items()
    read = {name: _read(name, field, values.get(name, "")) for name, field in fields}
    udp, options = read.pop("protocol") == "udp", DIRECTIONS[read.pop("direction")]
    plan = Plan(udp=udp, options=options, **read)
    client, server = map(store.agents.get, (plan.client_agent_id, plan.server_agent_id))
    exercise = store.exercises.create(f"page: {client.name} to {server.name}", read["time_seconds"])
    try:
        new = store.exercises.add_test(exercise.id, plan)
    except Refused:
        store.exercises.stop(exercise.id)
        raise
    store.exercises.start(exercise.id)
    return new.test


def _read(name: str, field: Field, text: str) -> Any:
    if not field.most and text not in field.choices:
        raise Misfit(f"Choose a {field.label.lower()} from the list", name)
    if field.most and not (re.fullmatch("[0-9]{1,5}", text) and 1 <= int(text) <= field.most):
        raise Misfit(f"{field.label} must be a whole number from 1 to {field.most}", name)
    return int(text) if text.isdecimal() else text


def _told(agent: ManagedAgent) -> str:
    if agent.status == "online":
        return agent.name
    return f"{agent.name}, {'offline' if agent.last_heartbeat else 'never registered'}"
