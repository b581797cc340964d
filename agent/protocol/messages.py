"""What the Manager and the agent send each other, except payloads and results.

A claimed task belongs to one life of a Manager, and to the claim that obtained it.
"""

from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Struct

TASK_TYPES = ("iperf_server_start", "iperf_client_run", "kill_all")
# A task of such a status has ended at the Manager.
FINAL_STATUSES = frozenset({"succeeded", "failed", "canceled", "timed_out"})


class Task(Struct, frozen=True):
    """One task as it was claimed. `payload` is the undecoded JSON of its parameters.

    `status` is `accepted`, or a final one when the claim was replayed after the task had ended.
    `unreadable` says why the payload cannot be read: the task fails with these words.
    """

    id: int
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    status: str = "accepted"
    unreadable: str = ""


class RegisterBody(Struct):
    """The body of `register`."""

    ip_address: str
    operating_system: str


class AgentRecord(Struct):
    """The answer to `register`, without the key that it contains as well."""

    id: int
    first_registered: str | None = None


class Life(Struct, frozen=True):
    """One life of a Manager. A Manager that is set up anew numbers its tasks from 1 again.

    `registered` is when it first registered this agent, to the second, because a database may
    keep fewer digits than the first answer had.
    """

    manager_url: str
    agent_id: int
    registered: str

    @classmethod
    def of(cls, manager_url: str, record: AgentRecord) -> "Life":
        """The life that answered a registration with this record."""
        registered = (record.first_registered or "").replace(" ", "T")
        return cls(manager_url, record.id, registered[:19])


class Claimed(Struct, frozen=True):
    """A claimed task. `key` is the Idempotency-Key of its claim; no other task has it."""

    task: Task
    life: Life
    key: str

    @property
    def without_payload(self) -> "Claimed":
        """The same without the payload, which may be large, and which a restarted agent ignores."""
        bare = msgspec.structs.replace(self.task, payload=msgspec.Raw(b"{}"))
        return msgspec.structs.replace(self, task=bare)


class RunningRow(Struct, omit_defaults=True):
    """One row of the heartbeat's `running` list; `started_at` is UTC in ISO 8601.

    Only a client that streams its intervals has a current rate and its `retransmits` so far.
    """

    type: Literal["server", "client"]
    port: int
    pid: int
    task_id: int
    started_at: str
    bits_per_second: float | None = None
    retransmits: int | None = None


class HeartbeatBody(Struct):
    """The body of `heartbeat`, with a row for each child that runs now."""

    ip_address: str
    running: list[RunningRow]


class HeartbeatAnswer(Struct):
    """The answer to `heartbeat`; `cancel` lists the tasks that the agent has to stop."""

    pull_tasks: bool = True
    cancel: list[int] = []


class ClaimAnswer(Struct):
    """The answer to `claim`."""

    task: Task | None = None


class StartedBody(Struct):
    """The body of `started`: the pid of the task's process."""

    pid: int


class Acknowledged(Struct):
    """The answer to `started` and `result`: the task. Only its id is read."""

    id: int


class Health(Struct):
    """The answer to `/healthz`."""

    ok: bool


class RefusalDetails(Struct, frozen=True):
    """What a refusal says about the task."""

    current_status: str | None = None


class RefusalDetail(Struct, frozen=True):
    """The `detail` of a 400 or 401."""

    error: str = ""
    details: RefusalDetails | None = None


class Refusal(Struct):
    """A refusal of the Manager: 404 has `error` at the top, 400 and 401 have it in `detail`.

    422 has a list of faults there. A text there is FastAPI's own, and may be any server's.
    """

    error: str = ""
    detail: RefusalDetail | list[msgspec.Raw] | str = RefusalDetail()


def timestamp(moment: datetime) -> str:
    """A UTC moment in ISO 8601 with milliseconds and `Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_now() -> str:
    """The present moment, as `timestamp` writes it."""
    return timestamp(datetime.now(UTC))
