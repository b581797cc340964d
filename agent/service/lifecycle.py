"""The agent from its registration to its end: starts, watches and stops the greenlets, in order."""

import time
from collections.abc import Callable

import gevent
import structlog
from gevent.event import Event

from agent import __version__
from agent.config.key import Key
from agent.config.settings import Config, changed_settings
from agent.error_classes import ErrorClass
from agent.errors import ManagerRefused, TaskError
from agent.host import allow_descriptors
from agent.manager.access import manager_access
from agent.manager.api import ManagerClient
from agent.manager.registration import Registration
from agent.metrics import Metrics
from agent.outbox.delivery import Delivery
from agent.outbox.queue import Outbox
from agent.registry import Entry, TaskRegistry
from agent.service import systemd
from agent.service.claims import claim_loop
from agent.service.heartbeat import heartbeat_loop
from agent.service.signals import StopSignals
from agent.service.supervisor import Supervisor
from agent.state.directory import StateDirectory
from agent.state.journal import Journal
from agent.state.spool import Spool
from agent.status.snapshot import View
from agent.tasks.context import TaskContext
from agent.tasks.recovery import recover
from agent.tasks.runner import TaskRunner

# A claim in flight gets this many seconds to bring its task; one that the Manager holds is cut.
CLAIM_FAREWELL = 0.5
IDLE_LOOK = 0.1
# The children's part of the shutdown's time; what is left is for their results.
CHILDREN_SHARE = 0.75
# Seconds for killed children to be gone, with their outcomes in the outbox.
KILL_TAKES = 1.0

log = structlog.get_logger()


class Agent:
    """One agent. `run()` is its whole life."""

    def __init__(self, config: Config, key: Key, signals: StopSignals) -> None:
        """Open the state directory; raises StateLocked and ConfigError."""
        self._config = config
        self._signals = signals
        self._supervisor = Supervisor()
        self._state = StateDirectory(config.state, config.state_max_bytes)
        self._journal = Journal(self._state)
        self._spool = Spool(self._state)
        metrics = Metrics()
        self._client = ManagerClient(manager_access(config, key), metrics)
        self._registry = TaskRegistry()
        self._registration = Registration(config, self._client, self._leave_all)
        delivery = Delivery(
            self._client,
            self._registration,
            self._journal,
            self._spool,
            self._registry,
            self._state,
            config.max_result_bytes,
        )
        self._outbox = Outbox(delivery, self._registration, self._spool, self._supervisor.spawn)
        self._bench = TaskContext(
            config, self._registry, self._outbox, self._journal, self._state, metrics
        )
        self._runner = TaskRunner(self._bench, self._supervisor.spawn)
        self._may_claim = Event()
        self._may_claim.set()
        self._stop_claims = Event()
        self._stop_rest = Event()

    def view(self) -> View:
        """A look into the agent, for its status page."""
        return View(self._bench, self._registration)

    def run(
        self,
        exit_after_idle: float | None = None,
        errand: Callable[[], None] | None = None,
        companion: Callable[[Event], None] | None = None,
    ) -> None:
        """Register, work until a signal, and stop.

        With `exit_after_idle` it also ends after so many seconds without a task. `errand` runs
        in a greenlet once the agent is registered; until it is done the agent is not idle.
        `companion` runs in one from the beginning until the event that it is given.
        Raises what ended the agent otherwise: ManagerUnavailable when it could not register in
        time, KeyRefused, AgentUnknown, whatever `errand` raises, or a bug.
        """
        allow_descriptors()
        if companion:
            self._supervisor.spawn(companion, self._stop_rest)
        beginning = self._supervisor.spawn(self._begin)
        gevent.wait([beginning, self._signals.drain, self._signals.retire], count=1)
        if self._signals.stop_asked() and not beginning.ready():
            # Its children, of which there is `iperf3 --version` at most, die with the process.
            log.info("agent stopped before it was registered", why=self._signals.name)
            return
        if self._supervisor.failure:
            raise self._supervisor.failure
        self._work(exit_after_idle, errand)

    def _begin(self) -> None:
        """All that comes before the loops; a signal need not wait for it."""
        missing = ""
        try:
            self._bench.look_for_iperf3()
        except TaskError as error:
            missing = str(error)
        log.info(
            "agent starts",
            version=__version__,
            iperf3=self._bench.found.version if self._bench.found else None,
            manager_url=self._config.manager_url,
            state_dir=str(self._config.state),
            settings=changed_settings(self._config),
        )
        if missing:
            log.error("no usable iperf3: tests will fail until there is one", error=missing)
        recover(
            self._state,
            self._journal,
            self._spool,
            self._outbox,
            self._bench.metrics,
            self._config.stop_grace,
        )
        self._registration.register()

    def _work(self, exit_after_idle: float | None, errand: Callable[[], None] | None) -> None:
        spawn = self._supervisor.spawn
        heartbeats = spawn(
            heartbeat_loop,
            self._client,
            self._registration,
            self._registry,
            self._bench.metrics,
            self._config.heartbeat_interval,
            self._may_claim,
            self._stop_rest,
        )
        claims = spawn(
            claim_loop,
            self._client,
            self._registration,
            self._journal,
            self._runner,
            self._config.claim_interval,
            self._may_claim,
            self._stop_claims,
        )
        spawn(self._state.watch, self._state_recovered, self._stop_rest)
        spawn(systemd.keep_informed, self._registry, self._bench.metrics, self._stop_rest)
        self._outbox.start()
        errands = [spawn(errand)] if errand else []
        self._wait_for_the_end(exit_after_idle, errands)
        if self._signals.retire.is_set():
            self._retire(claims)
        self._drain(claims)
        self._stop_rest.set()
        heartbeats.kill()
        if self._supervisor.failure:
            raise self._supervisor.failure

    def _state_recovered(self) -> None:
        self._journal.mend()
        self._spool.forget_settled()
        self._outbox.save_all()

    def _leave_all(self) -> None:
        """The Manager was replaced: nobody waits for the outcomes of what runs any more."""
        for entry in self._registry.stop_all(ErrorClass.INTERRUPTED, "the Manager was replaced"):
            entry.gone.wait()

    def _wait_for_the_end(
        self, exit_after_idle: float | None, errands: list[gevent.Greenlet]
    ) -> None:
        ends = [self._signals.drain, self._signals.retire, self._supervisor.failed]
        if exit_after_idle is None:
            gevent.wait(ends, count=1)
            return
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < max(exit_after_idle, IDLE_LOOK):
            if gevent.wait(ends, timeout=IDLE_LOOK, count=1):
                return
            if (
                len(self._registry)
                or len(self._outbox)
                or not all(errand.ready() for errand in errands)
            ):
                idle_since = time.monotonic()
        log.info("idle for long enough", seconds=exit_after_idle)

    def _retire(self, claims: gevent.Greenlet) -> None:
        """Claim nothing more and let the client tests come to their ends."""
        log.info("agent retires", why=self._signals.name, clients=len(self._registry.clients()))
        self._end_claims(claims)
        ends = [self._signals.drain, self._supervisor.failed]
        while self._registry.clients() and not gevent.wait(ends, timeout=IDLE_LOOK, count=1):
            continue

    def _end_claims(self, claims: gevent.Greenlet) -> None:
        self._stop_claims.set()
        claims.join(CLAIM_FAREWELL)
        claims.kill()

    def _drain(self, claims: gevent.Greenlet) -> None:
        """No new claims, every child stopped, every result sent; a second signal hurries."""
        systemd.notify("STOPPING=1\nSTATUS=stopping")
        began = time.monotonic()
        until = began + self._config.shutdown_timeout
        children_until = began + self._config.shutdown_timeout * CHILDREN_SHARE
        why = self._signals.name or str(self._supervisor.failure or "idle")
        log.info("agent stops", why=why, running=len(self._registry), waiting=len(self._outbox))
        self._end_claims(claims)
        entries = self._registry.stop_all(ErrorClass.INTERRUPTED, f"the agent was stopped ({why})")
        gone = gevent.spawn(lambda: [entry.gone.wait() for entry in entries])
        gevent.wait([gone, self._signals.kill], _left(children_until), count=1)
        self._registry.hurry_all()
        gone.join(KILL_TAKES)
        if not isinstance(self._supervisor.failure, ManagerRefused):
            flushed = gevent.spawn(self._outbox.flush, _left(until))
            gevent.wait([flushed, self._signals.kill], count=1)
        self._outbox.stop()
        log.info(
            "agent stopped",
            undelivered=len(self._outbox),
            running=len(self._registry),
            children=[_fate(entry) for entry in entries if entry.pid or entry.last_child],
        )


def _fate(entry: Entry) -> dict[str, object]:
    """What became of a task's child in the shutdown."""
    pid, fate = entry.last_child or (0, "")
    if entry.pid:
        pid, fate = entry.pid, "left running, and dies with the agent"
    return {"task_id": entry.task.id, "type": entry.kind, "pid": pid, "fate": fate}


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())
