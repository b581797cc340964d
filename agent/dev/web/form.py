"""The form that starts a test: its fields, what is wrong about their values, and the start."""

import re
from typing import Any

from msgspec import Struct

from agent.dev.errors import Misfit, Refused
from agent.dev.store.records import ManagedAgent, Plan, Test
from agent.dev.store.store import Store


class Number(Struct, frozen=True):
    """A field for a whole number from 1 to `most`, which is `key` in the client's payload."""

    label: str
    key: str
    first: int
    most: int


# The form has two agents, these choices and these numbers. Each value of a choice has its words
# and what it adds to the client's payload; the first one adds nothing.
CHOICES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "direction": {
        "send": ("client to server", {}),
        "reverse": ("server to client", {"reverse": True}),
        "both": ("both at once", {"bidir": True}),
    },
    "protocol": {"tcp": ("TCP", {}), "udp": ("UDP", {"udp": True})},
}
NUMBERS = {
    "parallel": Number("Streams", "parallel", first=1, most=128),
    "time_seconds": Number("Seconds", "time", first=10, most=86400),
    "server_port": Number("Port", "port", first=5201, most=65535),
}


def values_of(store: Store, test: Test | None) -> dict[str, str]:
    """The form that starts this test again, or the first one between agents that are online."""
    online = [agent.id for agent in store.agents.find("online")] or [0]
    client, server, payload = online[-1], online[0], {}
    if test:
        client, server = test.client_agent_id, test.server_agent_id
        payload = store.tasks.get(test.client_task_id).payload
    values = {"client_agent_id": str(client), "server_agent_id": str(server)}
    for name, options in CHOICES.items():
        fitting = [way for way, (_, adds) in options.items() if adds.items() <= payload.items()]
        values[name] = fitting[-1]
    for name, number in NUMBERS.items():
        values[name] = str(payload.get(number.key, number.first))
    return values


def start_test(store: Store, values: dict[str, str]) -> Test:
    """Start the test that the form describes.

    Raises Refused, and then leaves nothing behind; Misfit names the `field` to correct.
    """
    payload = _payload(values)
    client, server = (_agent(store, values, side) for side in ("client", "server"))
    exercise = store.exercises.create(f"page: {client.name} to {server.name}", payload["time"])
    port, parallel = payload["port"], payload["parallel"]
    plan = Plan(server.id, client.id, port, "udp" in payload, parallel, options=payload)
    try:
        new = store.exercises.add_test(exercise.id, plan)
    except Refused:
        store.exercises.stop(exercise.id)
        raise
    store.exercises.start(exercise.id)
    return new.test


def _payload(values: dict[str, str]) -> dict[str, Any]:
    """What the form says of the client's payload; raises Misfit."""
    payload: dict[str, Any] = {}
    for name, options in CHOICES.items():
        if values.get(name) not in options:
            raise Misfit(f"Choose a {name} from the list", name)
        payload |= options[values[name]][1]
    for name, number in NUMBERS.items():
        given = _whole_number(values.get(name, ""))
        if not 1 <= given <= number.most:
            raise Misfit(f"{number.label} must be a whole number from 1 to {number.most}", name)
        payload[number.key] = given
    return payload


def _agent(store: Store, values: dict[str, str], side: str) -> ManagedAgent:
    """The agent that the form names for that side; raises Refused when it is disabled."""
    agent_id = _whole_number(values.get(f"{side}_agent_id", ""))
    if not agent_id:
        raise Misfit(f"Choose a {side} from the list", f"{side}_agent_id")
    agent = store.agents.get(agent_id)
    if agent.disabled:
        raise Refused(409, "agent_disabled", f"{agent.name!r} is disabled")
    return agent


def _whole_number(text: str) -> int:
    """The number that the text is, or 0."""
    return int(text) if re.fullmatch("[1-9][0-9]{0,8}", text) else 0
