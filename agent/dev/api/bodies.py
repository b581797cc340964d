"""The bodies and queries of the calls; those of a result are in `records`."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from agent.dev.store.records import HeartbeatRow, Seconds

Text = Annotated[str, Meta(min_length=1)]


class RegisterBody(Struct):
    """The body of `register`."""

    ip_address: str
    operating_system: str | None = None


class HeartbeatBody(Struct):
    """The body of `heartbeat`."""

    ip_address: str
    running: list[HeartbeatRow]


class ClaimBody(Struct):
    """The body of `claim`: an object, of which nothing is read."""


class StartedBody(Struct):
    """The body of `started`; the dev Manager has no use for the pid but checks it."""

    pid: int | None = None


class Login(Struct):
    """The body of a login."""

    username: str
    password: str


class NewAgent(Struct):
    """The body that makes an agent known."""

    name: Text
    registration_key: Text
    operating_system: str | None = None


class AgentChange(Struct, omit_defaults=True):
    """The body that changes an agent; what is left out stays."""

    name: Text | UnsetType = UNSET
    registration_key: Text | UnsetType = UNSET
    operating_system: str | None | UnsetType = UNSET


class AgentQuery(Struct):
    """The query of the list of agents."""

    include_disabled: bool = False
    status: str | None = None


class NewExercise(Struct):
    """The body that creates an exercise."""

    name: Text
    duration_seconds: Seconds = 30
    notes: str | None = None


class NewTask(Struct):
    """The body that adds a task outside any exercise, a call of the dev Manager's own."""

    agent_id: int
    type: Text
    payload: dict[str, Any] = {}


class TaskQuery(Struct):
    """The query of the list of tasks."""

    agent_id: int | None = None
    status: str | None = None
    type: str | None = None
