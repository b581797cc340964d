"""What the dev Manager remembers. It answers with the same structs."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from agent.protocol import PAYLOADS

Text = Annotated[str, Meta(min_length=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
# iperf3's own bounds (3.12, `iperf_api.h`).
Seconds = Annotated[int, Meta(ge=1, le=86400)]
Parallel = Annotated[int, Meta(ge=1, le=128)]

TaskStatus = Literal[
    "queued", "pending", "accepted", "running", "succeeded", "failed", "canceled", "timed_out"
]

SERVER_START, CLIENT_RUN, KILL_ALL = PAYLOADS

NULL = msgspec.Raw(b"null")


def utc_now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


class ManagedAgent(Struct):
    """An agent as the Manager knows it. `registration_key` is a secret.

    `first_registered` is when it was made known, as in the real Manager; an old state file may have
    null. `taking_turns` has the addresses of several hosts that report with its name and key.
    """

    id: int
    name: str
    registration_key: str
    operating_system: str | None = None
    ip_address: str | None = None
    status: Literal["online", "offline"] = "offline"
    disabled: bool = False
    first_registered: datetime | None = field(default_factory=utc_now)
    last_heartbeat: datetime | None = None
    taking_turns: list[str] | UnsetType = UNSET

    @property
    def state(self) -> str:
        """Its status in words."""
        return self.status if self.last_heartbeat else "never registered"


class Exercise(Struct):
    """A set of tests that start together. `duration_seconds` is the tests' default length."""

    id: int
    name: str
    duration_seconds: int
    notes: str | None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether it has started and not ended."""
        return self.started_at is not None and self.ended_at is None


class Test(Struct):
    """One measurement between two agents, and the two tasks that do it."""

    id: int
    exercise_id: int
    server_task_id: int
    client_task_id: int
    server_agent_id: int
    client_agent_id: int
    server_port: int
    udp: bool
    parallel: int
    time_seconds: int


class ManagedTask(Struct):
    """One order to one agent. `result` is the JSON that the agent sent, byte for byte."""

    id: int
    type: str
    agent_id: int
    status: TaskStatus
    payload: dict[str, Any]
    created_at: datetime
    accepted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    result: msgspec.Raw = NULL
    error: str | None = None

    def finish(self, status: TaskStatus) -> None:
        """End the task now, unless it had ended before: then it has another status from now on."""
        self.status, self.finished_at = status, self.finished_at or utc_now()


class NewTest(Struct):
    """A test that was just added, and its tasks."""

    test: Test
    server_task: ManagedTask
    client_task: ManagedTask


class HeartbeatRow(Struct):
    """One running child in a heartbeat. All that follows `pid` is our extension."""

    type: Literal["server", "client"]
    port: int
    pid: int
    task_id: int | None = None
    started_at: str | None = None
    bits_per_second: float | None = None
    retransmits: int | None = None
