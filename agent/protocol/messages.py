"""What the Manager and the agent send each other, but for the payloads of tasks."""

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

TASK_TYPES = ("iperf_server_start", "iperf_client_run", "kill_all")
# A task of such a status has ended at the Manager.
FINAL_STATUSES = frozenset({"succeeded", "failed", "canceled", "timed_out"})


class Task(Struct, frozen=True):
    """One task as it was claimed. `payload` is the undecoded JSON of its parameters.

    `status` is `accepted`, but for a claim that is replayed after its task has ended.
    `unreadable` says why the payload is none: the task fails with that.
    """

    id: int
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    status: str = "accepted"
    unreadable: str = ""


class AgentRecord(Struct):
    """The answer to `register`, without the key that it also carries."""

    id: int
    name: str = ""
    first_registered: str | None = None


class HeartbeatAnswer(Struct):
    """The answer to `heartbeat`; `cancel` lists tasks whose children are to be stopped."""

    pull_tasks: bool = True
    cancel: list[int] = []


class ClaimAnswer(Struct):
    """The answer to `claim`."""

    task: Task | None = None


class Acknowledged(Struct):
    """The answer to `started` and `result`: the task, of which only the id is read."""

    id: int


class Health(Struct):
    """The answer to `/healthz`."""

    ok: bool


class RefusalDetails(Struct, frozen=True):
    """What a refusal says about the task."""

    current_status: str | None = None


class RefusalDetail(Struct, frozen=True):
    """The inner part of the Manager's 400 and 401 answers."""

    error: str = ""
    details: RefusalDetails | None = None


class Refusal(Struct):
    """The Manager's refusals: 404 says `error` at the top, 400 and 401 inside `detail`."""

    error: str = ""
    detail: RefusalDetail = RefusalDetail()


class RunningRow(Struct, omit_defaults=True):
    """One row of the heartbeat's `running` list; `started_at` is UTC in ISO 8601.

    `bits_per_second` lately and `retransmits` so far are known of a client that streams them.
    """

    type: Literal["server", "client"]
    port: int
    pid: int
    task_id: int
    started_at: str
    bits_per_second: float | None = None
    retransmits: int | None = None


def timestamp(moment: datetime) -> str:
    """A UTC moment in ISO 8601 with milliseconds and `Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
