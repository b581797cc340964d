"""Whose task it is: the Manager's life that handed it out, and the claim that obtained it."""

import msgspec
from msgspec import Struct

from agent.protocol.messages import AgentRecord, Task


class Life(Struct, frozen=True):
    """One life of a Manager: one that was set up anew numbers its tasks from 1 again.

    `registered` is when it first registered this agent, to the second: a database may keep
    fewer digits than the first answer had.
    """

    manager_url: str
    agent_id: int
    registered: str

    @classmethod
    def of(cls, manager_url: str, record: AgentRecord) -> "Life":
        """The life that answered a registration."""
        registered = (record.first_registered or "").replace(" ", "T")
        return cls(manager_url, record.id, registered[:19])


class Claimed(Struct, frozen=True):
    """A claimed task. `key` is the Idempotency-Key of the claim, and so is no other task's."""

    task: Task
    life: Life
    key: str

    @property
    def on_disk(self) -> "Claimed":
        """What another life of the agent needs: not the payload, which may be large or hostile."""
        bare = msgspec.structs.replace(self.task, payload=msgspec.Raw(b"{}"))
        return msgspec.structs.replace(self, task=bare)
