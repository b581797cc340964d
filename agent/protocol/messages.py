"""What the Manager and the agent send each other, except payloads and results."""

from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from agent.protocol.moments import Moment, is_same_moment

# A task of such a status has ended at the Manager.
FINAL_STATUSES = frozenset({"succeeded", "failed", "canceled", "timed_out"})


class Task(Struct, frozen=True):
    """One task as it was claimed. `payload` is the undecoded JSON of its parameters.

    `status` is `accepted`, or a final one when the claim was replayed after the task had ended.
    `unreadable` says why the payload cannot be read: the task fails with these words. Version
    0.1.0 wrote no `created_at`.
    """

    id: int
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    status: str = "accepted"
    created_at: Moment = None
    unreadable: str = ""

    def is_same(self, other: "Task | Acknowledged") -> bool:
        """Whether both are one task. A Manager that counts anew gives a number a second time."""
        return (
            self.id == other.id
            and (self.type == other.type or "" in (self.type, other.type))
            and is_same_moment(self.created_at, other.created_at)
        )


class AgentRecord(Struct):
    """The answer to `register`, without the key that it contains as well."""

    id: int
    first_registered: Moment = None


class Origin(Struct, frozen=True):
    """Where a task comes from: a Manager's URL, and the agent's record there.

    `registered` is for version 0.1.0, which wrote and compares the moment to the second, as text.
    """

    manager_url: str
    agent_id: int
    registered: str
    first_registered: Moment = None

    @classmethod
    def of(cls, manager_url: str, record: AgentRecord) -> "Origin":
        """The origin of what the Manager hands out whose answer to a registration this is."""
        text = str(record.first_registered or "").replace(" ", "T")
        return cls(manager_url, record.id, text[:19], record.first_registered)

    def is_same(self, other: "Origin") -> bool:
        """Whether both are one record of the agent at one Manager."""
        return (
            _server(self.manager_url) == _server(other.manager_url)
            and self.agent_id == other.agent_id
            and (self.registered == other.registered or is_same_moment(self._moment, other._moment))
        )

    @property
    def _moment(self) -> Moment:
        return self.registered if self.first_registered is None else self.first_registered


class Claimed(Struct, frozen=True, rename={"origin": "life"}):
    """A claimed task. `key` is the Idempotency-Key of its claim; no other task has it.

    On the disk `origin` is called `life`, as version 0.1.0 called it.
    """

    task: Task
    origin: Origin
    key: str

    def is_same(self, other: "Claimed") -> bool:
        """Whether both claims brought one task."""
        return self.task.is_same(other.task) and self.origin.is_same(other.origin)

    @property
    def without_payload(self) -> "Claimed":
        """The same without the payload, which may be large, and which a restarted agent ignores."""
        bare = msgspec.structs.replace(self.task, payload=msgspec.Raw(b"{}"))
        return msgspec.structs.replace(self, task=bare)


class RunningRow(Struct, omit_defaults=True):
    """A child that runs now, in the heartbeat's `running` list; `started_at` is UTC in ISO 8601.

    Only a client that streams its intervals has a current rate and its `retransmits` so far.
    """

    type: Literal["server", "client"]
    port: int
    pid: int
    task_id: int
    started_at: str
    bits_per_second: float | None = None
    retransmits: int | None = None


class HeartbeatAnswer(Struct):
    """The answer to `heartbeat`; `cancel` lists the tasks that the agent has to stop.

    `other_instance` is the address of another host that reports with the same name and key.
    """

    pull_tasks: bool = True
    cancel: list[int] = []
    other_instance: str | None = None


class ClaimAnswer(Struct):
    """The answer to `claim`."""

    task: Task | None = None


class Acknowledged(Struct):
    """The answer to `started` and `result`: which task the Manager took them for."""

    id: int
    type: str = ""
    created_at: Moment = None


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


def _server(url: str) -> tuple[str, str, int | None, str]:
    """What of a URL tells one Manager from another."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port, parts.path.rstrip("/")
