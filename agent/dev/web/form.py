"""The form that starts a test: its fields, what they may have, and the start."""

from typing import Any, NamedTuple

import msgspec

from agent.config.types import RATE
from agent.dev.errors import Refused, misfit
from agent.dev.store.records import Test
from agent.dev.store.store import Store
from agent.dev.web.overview import WAYS, way_of
from agent.errors import TaskError
from agent.protocol import ClientPayload, read_payload

# iperf3's own for UDP. Without one, an agent has it send as fast as it can.
UDP_BITRATE = 1_000_000


class Field(NamedTuple):
    """A field has one of the `choices`, or what an agent takes for the `key` of its payload.

    `first` is what it has in the first form: empty if it may be left empty.
    """

    label: str
    first: object
    key: str = ""
    choices: dict[str, str] = {}
    hint: str = ""


# These have the names of their keys.
OPTIONS = {
    "bitrate": Field("Bitrate", "", "bitrate", hint="A stream's, like 5M. Empty: no limit, UDP 1M"),
    "omit": Field("Seconds to omit", "", "omit"),
    "dscp": Field("DSCP", "", "dscp", hint="A number or a class like ef"),
    "ip_version": Field("IP version", "", choices={"": "any", "4": "4", "6": "6"}),
    "bind": Field("Bind", "", "bind", hint="An IP address of the client's host"),
}


def fields_of(store: Store) -> dict[str, Field]:
    """The fields by name. The agents to choose from are those that are not disabled."""
    known = store.agents.find()
    agents = {str(each.id): f"{each.name}, {each.state}".removesuffix(", online") for each in known}
    online = [agent.id for agent in store.agents.find("online")] or [0]
    return {
        "client_agent_id": Field("Client", online[-1], choices=agents),
        "server_agent_id": Field("Server", online[0], choices=agents),
        "direction": Field("Direction", "client to server", choices={way: way for way in WAYS}),
        "protocol": Field("Protocol", "tcp", choices={"tcp": "TCP", "udp": "UDP"}),
        "parallel": Field("Streams", 1, "parallel"),
        "time_seconds": Field("Seconds", 10, "time"),
        "server_port": Field("Port", 5201, "port"),
        **OPTIONS,
    }


def values_of(store: Store, test: Test | None) -> dict[str, Any]:
    """The form that starts this test again, or the first one between agents that are online."""
    first = {name: field.first for name, field in fields_of(store).items()}
    if test is None:
        return first
    task = store.tasks.get(test.client_task_id)
    choices = {"direction": way_of(task), "protocol": "udp" if test.udp else "tcp"}
    return {**first, **task.payload, **msgspec.structs.asdict(test), **choices}


def start_test(store: Store, values: dict[str, str]) -> Test:
    """Start the test that the form describes.

    Raises Refused with all `faults` of the form, and then leaves nothing behind.
    """
    read: dict[str, Any] = {}
    refused: list[Refused] = []
    for name, field in fields_of(store).items():
        try:
            read[name] = _read(name, field, values.get(name, "").strip())
        except Refused as fault:
            refused.append(fault)
    try:
        if server_id := read.get("server_agent_id"):
            address = store.exercises.server_address(server_id, read.get("server_port", 0))
            words, is_v6 = f"The server's address is {address}", ":" in address
            if read.get("ip_version") == (4 if is_v6 else 6):
                refused.append(misfit(words, "ip_version"))
            if (":" in (read.get("bind") or address)) != is_v6:
                refused.append(misfit(words, "bind"))
    except Refused as fault:
        refused.append(fault)
    for each in refused[1:]:
        refused[0].faults |= each.faults
    if refused:
        raise refused[0]
    udp = read.pop("protocol") == "udp"
    options: dict[str, Any] = {"bitrate": UDP_BITRATE} if udp else {}
    options |= WAYS[read.pop("direction")]
    options |= {name: value for name in OPTIONS if (value := read.pop(name)) != ""}
    client, server = (store.agents.get(read[f"{side}_agent_id"]) for side in ("client", "server"))
    exercise = store.exercises.create(f"page: {client.name} to {server.name}", read["time_seconds"])
    new = store.exercises.add_test(exercise.id, udp=udp, options=options, **read)
    store.exercises.start(exercise.id)
    return new.test


def _read(name: str, field: Field, text: str) -> Any:
    if not field.key and text not in field.choices:
        raise misfit(f"{field.label}: choose one from the list", name)
    value: Any = 0 if text == "0" else RATE.convert(text) or text
    if field.key and (text or field.first != ""):
        payload = {"server_ip": "::1", "port": 1, field.key: value}
        try:
            read_payload(msgspec.Raw(msgspec.json.encode(payload)), ClientPayload)
        except TaskError as error:
            accepted = str(error).partition(" must be ")[2].partition(", not ")[0]
            raise misfit(f"{field.label} must be {accepted}", name) from error
    return value
