"""The agents: who they are, and what they last said."""

from collections import defaultdict
from datetime import datetime
from threading import Condition
from typing import Any

from agent.dev.errors import Conflict, NotFound
from agent.dev.store.database import Database, find, matching, wake
from agent.dev.store.instances import OFFLINE_AFTER, Instances
from agent.dev.store.records import HeartbeatRow, ManagedAgent, Text, utc_now


class Agents:
    """The agents by id. `wakeups` has, for each of them, what its waiting claim waits for."""

    def __init__(self, database: Database) -> None:
        self.wakeups: defaultdict[int, Condition] = defaultdict(Condition)
        self._database = database
        self._agents = database.state.agents
        self._running: dict[int, list[HeartbeatRow]] = {}
        self._instances: defaultdict[int, Instances] = defaultdict(Instances)

    def add(
        self, name: Text, registration_key: Text, operating_system: str | None = None
    ) -> ManagedAgent:
        """Make an agent known; raises Conflict when the name is taken."""
        self._check_name(name)
        agent = ManagedAgent(len(self._agents) + 1, name, registration_key, operating_system)
        self._agents[agent.id] = agent
        return self._database.commit(agent)

    def update(self, agent_id: int, changes: dict[str, Any]) -> ManagedAgent:
        """Set fields of an agent; raises NotFound, or Conflict when the name is taken."""
        agent = self.get(agent_id)
        if changes.get("name", agent.name) != agent.name:
            self._check_name(changes["name"])
        for field, value in changes.items():
            setattr(agent, field, value)
        # A claim of an agent that is disabled now is refused at once.
        wake(self.wakeups[agent_id])
        return self._database.commit(agent)

    def get(self, agent_id: int) -> ManagedAgent:
        """The agent with that id; raises NotFound."""
        return find(self._agents, agent_id, "agent")

    def enabled(self, agent_id: int) -> ManagedAgent:
        """The agent with that id; raises NotFound, also when it is disabled."""
        agent = self.get(agent_id)
        if agent.disabled:
            raise NotFound("the agent is disabled")
        return agent

    def named(self, name: str) -> ManagedAgent | None:
        """The agent with that name, or None."""
        return next((agent for agent in self._agents.values() if agent.name == name), None)

    def find(self, status: str | None = None, include_disabled: bool = False) -> list[ManagedAgent]:
        """The agents by id, of one status if one is given."""
        return matching(self._agents, status=status, disabled=None if include_disabled else False)

    def running(self, agent_id: int) -> list[HeartbeatRow]:
        """What the agent's last heartbeat said it runs."""
        return self._running.get(agent_id, [])

    def register(
        self, agent_id: int, ip_address: str, operating_system: str | None = None
    ) -> ManagedAgent:
        """An agent introduces itself, which counts as a heartbeat."""
        agent = self.get(agent_id)
        self._see(agent, ip_address)
        agent.operating_system = operating_system or agent.operating_system
        agent.first_registered = agent.first_registered or utc_now()
        return self._database.commit(agent)

    def heartbeat(
        self, agent_id: int, ip_address: str, running: list[HeartbeatRow], instance: str = ""
    ) -> list[str]:
        """An agent says what it runs. The next sweep writes it: a crash may lose it.

        Returns the addresses of other instances of the agent that take turns with this one.
        Raises NotFound when the agent is disabled.
        """
        agent, instances = self.enabled(agent_id), self._instances[agent_id]
        self._see(agent, ip_address)
        instances.record(instance, ip_address, utc_now())
        agent.taking_turns = instances.addresses()
        self._running[agent_id] = running
        self._database.touch()
        return instances.others(instance)

    def mark_offline(self, now: datetime) -> None:
        """Mark the agents that are silent for too long."""
        for agent in self.find("online", include_disabled=True):
            if agent.last_heartbeat and now - agent.last_heartbeat > OFFLINE_AFTER:
                agent.status, agent.taking_turns = "offline", []
                self._database.touch()

    def _check_name(self, name: str) -> None:
        if self.named(name):
            raise Conflict(f"there is already an agent named {name!r}")

    def _see(self, agent: ManagedAgent, ip_address: str) -> None:
        agent.ip_address, agent.status, agent.last_heartbeat = ip_address, "online", utc_now()
