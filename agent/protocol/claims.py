"""Whom a task belongs to: one life of a Manager, and the claim that obtained the task."""

import msgspec
from msgspec import Struct

from agent.protocol.messages import AgentRecord, Task


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
