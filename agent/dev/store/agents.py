"""The store's first chapter: memory, waiting, and the agents."""

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from hmac import compare_digest
from pathlib import Path
from typing import Any, TypeVar

from agent.dev.errors import Conflict, NotAuthorized, NotFound
from agent.dev.store import saved
from agent.dev.store.changes import Changes
from agent.dev.store.records import HeartbeatRow, StoredAgent, utc_now

# As the Manager's: three heartbeats of 5 s missed.
OFFLINE_AFTER = timedelta(seconds=15)

_Value = TypeVar("_Value")


class AgentBook:
    """Agents by id. No method yields to the hub except the waiting ones."""

    def __init__(self, extensions: bool = True, state_file: Path | None = None) -> None:
        self.extensions = extensions
        self._state_file = state_file
        self._state = saved.load(state_file) if state_file else saved.State()
        self._dirty = True
        self._changes = Changes()
        self._arrivals: defaultdict[int, Changes] = defaultdict(Changes)
        self._rows: dict[int, list[HeartbeatRow]] = {}

    def wait_for(self, predicate: Callable[[], _Value], timeout: float) -> _Value:
        """Wait until `predicate()` is true, at most `timeout` seconds; its last value.

        It is looked at after every change, heartbeats included, and must not yield.
        """
        return self._changes.wait_for(predicate, timeout)

    def save(self) -> None:
        """Write the state file if there is one and it is behind; raises StateUnwritable."""
        if self._state_file and self._dirty:
            saved.save(self._state, self._state_file)
        self._dirty = False

    def add_agent(self, name: str, key: str, operating_system: str | None = None) -> StoredAgent:
        """Make an agent known; raises Conflict when the name is taken."""
        self._check_name(name)
        agent = StoredAgent(len(self._state.agents) + 1, name, key, operating_system)
        self._state.agents[agent.id] = agent
        self._commit()
        return agent

    def update_agent(self, agent_id: int, changes: dict[str, Any]) -> StoredAgent:
        """Set fields of an agent; raises NotFound, or Conflict when the name is taken."""
        agent = self.agent(agent_id)
        if changes.get("name", agent.name) != agent.name:
            self._check_name(changes["name"])
        for field, value in changes.items():
            setattr(agent, field, value)
        self._commit()
        return agent

    def set_disabled(self, agent_id: int, disabled: bool) -> None:
        """Disable or enable an agent; a claim of its that is held is refused at once."""
        self.agent(agent_id).disabled = disabled
        self._arrivals[agent_id].notify()
        self._commit()

    def agent(self, agent_id: int) -> StoredAgent:
        """The agent of that id; raises NotFound."""
        return saved.find(self._state.agents, agent_id, "agent")

    def agent_named(self, name: str) -> StoredAgent | None:
        """The agent of that name, or None."""
        return next((a for a in self._state.agents.values() if a.name == name), None)

    def agents(
        self, status: str | None = None, include_disabled: bool = False
    ) -> list[StoredAgent]:
        """The agents in the order of their ids, of one status if one is given."""
        return [
            agent
            for agent in self._state.agents.values()
            if (include_disabled or not agent.disabled) and status in (None, agent.status)
        ]

    def running(self, agent_id: int) -> list[HeartbeatRow]:
        """What ran on the agent when its last heartbeat was sent."""
        return self._rows.get(agent_id, [])

    def authenticate(self, name: str, key: str) -> StoredAgent:
        """The agent that these headers prove; raises NotFound or NotAuthorized."""
        agent = self.agent_named(name)
        if agent is None:
            raise NotFound(f"no agent is named {name!r}")
        if not compare_digest(agent.registration_key.encode(), key.encode()):
            raise NotAuthorized("invalid_agent_key", "the registration key is wrong")
        return agent

    def register(self, agent_id: int, ip_address: str, operating_system: str | None) -> StoredAgent:
        """An agent says that it is there; counts as a heartbeat."""
        agent = self.agent(agent_id)
        agent.operating_system = operating_system or agent.operating_system
        agent.first_registered = agent.first_registered or utc_now()
        self._seen(agent, ip_address)
        self._commit()
        return agent

    def heartbeat(
        self, agent_id: int, ip_address: str, running: list[HeartbeatRow]
    ) -> dict[str, Any]:
        """An agent says what it runs; the answer, which may carry tasks to cancel.

        Reaches the state file with the next sweep: losing it in a crash costs nothing.
        """
        self._seen(self.agent(agent_id), ip_address)
        self._rows[agent_id] = running
        self._dirty = True
        self._changes.notify()
        cancel = self._state.cancels.get(agent_id) if self.extensions else None
        return {"pull_tasks": True, "cancel": cancel} if cancel else {"pull_tasks": True}

    def _commit(self) -> None:
        """Make a change known and durable."""
        self._dirty = True
        self._changes.notify()
        self.save()

    def _check_name(self, name: str) -> None:
        if self.agent_named(name):
            raise Conflict("agent_exists", f"an agent named {name!r} exists already")

    def _seen(self, agent: StoredAgent, ip_address: str) -> None:
        agent.ip_address = ip_address
        agent.status = "online"
        agent.last_heartbeat = utc_now()

    def _mark_offline(self, now: datetime) -> bool:
        """Whether an agent that fell silent was marked."""
        silent = [
            agent
            for agent in self._state.agents.values()
            if agent.status == "online"
            and agent.last_heartbeat is not None
            and now - agent.last_heartbeat > OFFLINE_AFTER
        ]
        for agent in silent:
            agent.status = "offline"
        return bool(silent)
