"""The agents: who they are, and what they last said."""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from gevent.event import Event
from msgspec import UNSET

from agent.config.types import NAME
from agent.dev.errors import conflict, misfit, not_found
from agent.dev.store.database import Database, find, matching
from agent.dev.store.records import HeartbeatRow, ManagedAgent, Text, utc_now

# The Manager's own rule: three heartbeats of 5 s missed.
OFFLINE_AFTER = timedelta(seconds=15)
# Of more that take turns, the latest are told.
KEPT = 8
# Of a test that runs: an hour and more of heartbeats.
RATES_KEPT = 1000


class _Heard(NamedTuple):
    address: str
    first: datetime
    last: datetime


class Instances:
    """The runs of one agent that were heard lately; the latest comes last.

    Two in turn are two hosts that have one name and key. An agent that restarts is another instance
    too, but the one before does not come back.
    """

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def record(self, instance: str, address: str, now: datetime) -> None:
        """Take note of a heartbeat, and forget who is silent for too long."""
        known = self._heard.pop(instance, None)
        since = now - OFFLINE_AFTER
        fresh = {name: heard for name, heard in self._heard.items() if heard.last >= since}
        own = _Heard(address, known.first if known else now, now)
        self._heard = dict([*fresh.items(), (instance, own)][-KEPT:])

    def others(self, instance: str) -> list[str]:
        """The addresses of those that take turns with this one, the latest last."""
        own = self._heard[instance]
        rest = [heard for heard in self._heard.values() if heard is not own]
        return [each.address for each in rest if each.first < own.last and own.first < each.last]

    def addresses(self) -> list[str]:
        """The addresses of all that take turns, sorted; none when there is but one."""
        return sorted(heard.address for name, heard in self._heard.items() if self.others(name))


class Agents:
    """The agents by id. `wakeups` has, for each of them, what its waiting claim waits for."""

    def __init__(self, database: Database) -> None:
        self.wakeups: defaultdict[int, Event] = defaultdict(Event)
        self._database = database
        self._agents = database.state.agents
        self._rates: dict[int, dict[int | None, list[tuple[datetime, float]]]] = {}
        self._instances: defaultdict[int, Instances] = defaultdict(Instances)

    def add(
        self, name: Text, registration_key: Text, operating_system: str | None = None
    ) -> ManagedAgent:
        """Make an agent known; raises Refused for a bad name, or one that is taken."""
        self._check_name(name)
        agent = ManagedAgent(len(self._agents) + 1, name, registration_key, operating_system)
        self._agents[agent.id] = agent
        return self._database.commit(agent)

    def update(self, agent_id: int, changes: dict[str, Any]) -> ManagedAgent:
        """Set fields of an agent; raises Refused without one, or for its new name."""
        agent = self.get(agent_id)
        if changes.get("name", agent.name) != agent.name:
            self._check_name(changes["name"])
        for field, value in changes.items():
            setattr(agent, field, value)
        # A claim of an agent that is disabled now is refused at once.
        self.wakeups[agent_id].set()
        return self._database.commit(agent)

    def get(self, agent_id: int) -> ManagedAgent:
        """The agent with that id; raises Refused."""
        return find(self._agents, agent_id, "agent")

    def enabled(self, agent_id: int) -> ManagedAgent:
        """The agent with that id; raises Refused, also when it is disabled."""
        agent = self.get(agent_id)
        if agent.disabled:
            raise not_found("the agent is disabled")
        return agent

    def named(self, name: str) -> ManagedAgent | None:
        """The agent with that name, or None."""
        return next((agent for agent in self._agents.values() if agent.name == name), None)

    def find(self, status: str | None = None, include_disabled: bool = False) -> list[ManagedAgent]:
        """The agents by id, of one status if one is given."""
        return matching(self._agents, status=status, disabled=None if include_disabled else False)

    def rates(self, agent_id: int, task_id: int) -> list[tuple[datetime, float]]:
        """The latest rates, in bit/s, that heartbeats gave of a task that runs, and when."""
        return self._rates.get(agent_id, {}).get(task_id, [])

    def register(
        self, agent_id: int, ip_address: str, operating_system: str | None = None
    ) -> ManagedAgent:
        """An agent introduces itself, which counts as a heartbeat."""
        agent = self.get(agent_id)
        self._see(agent, ip_address)
        agent.operating_system = operating_system or agent.operating_system
        return self._database.commit(agent)

    def heartbeat(
        self, agent_id: int, ip_address: str, running: list[HeartbeatRow], instance: str = ""
    ) -> list[str]:
        """An agent says what it runs. The next sweep writes it: a crash may lose it.

        Returns the addresses of other instances of the agent that take turns with this one.
        Raises Refused when the agent is disabled.
        """
        agent, instances = self.enabled(agent_id), self._instances[agent_id]
        self._see(agent, ip_address)
        instances.record(instance, ip_address, now := utc_now())
        agent.taking_turns = instances.addresses() or UNSET
        known = self._rates.get(agent_id, {})
        # A task that is not named any more, or begins anew, has none.
        self._rates[agent_id] = {
            row.task_id: [*known.get(row.task_id, []), (now, row.bits_per_second)][-RATES_KEPT:]
            for row in running
            if row.bits_per_second is not None
        }
        self._database.touch()
        return instances.others(instance)

    def mark_offline(self, now: datetime) -> None:
        """Mark the agents that are silent for too long."""
        for agent in self.find("online", include_disabled=True):
            if agent.last_heartbeat and now - agent.last_heartbeat > OFFLINE_AFTER:
                agent.status, agent.taking_turns = "offline", UNSET
                self._database.touch()

    def _check_name(self, name: str) -> None:
        if not NAME.accepts(name):
            raise misfit(f"{name!r} is no name for an agent: it must be {NAME.accepted}")
        if self.named(name):
            raise conflict(f"there is already an agent named {name!r}")

    def _see(self, agent: ManagedAgent, ip_address: str) -> None:
        agent.ip_address, agent.status, agent.last_heartbeat = ip_address, "online", utc_now()
