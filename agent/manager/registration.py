"""Registering with the Manager, and making sure later that it is still the same one."""

import time
from collections.abc import Callable

import gevent
import structlog
from gevent.lock import BoundedSemaphore

from agent import host
from agent.config.settings import Config
from agent.errors import ManagerAway, ManagerUnavailable
from agent.logs.outage import Outage
from agent.manager.api import ManagerClient
from agent.protocol import Life
from agent.timing import Backoff, jittered

# Re-register after about this many seconds, even if nothing has failed: a proxy can put another
# Manager in the place of this one. Jitter keeps agents that started together apart.
SURE_FOR = 60.0
# A name server that does not answer would take 10 s and more.
LOOKUP_DEADLINE = 4.0

log = structlog.get_logger()


class Registration:
    """The registration of one agent. `address` and `life` are known once it has registered.

    `replaced` is called when the Manager turns out to be another one, or to have been set up
    anew, before `life` changes. One back-off serves the whole agent: if each task's result had its
    own, an agent with many results would be back before all others.
    """

    def __init__(self, config: Config, client: ManagerClient, replaced: Callable[[], None]) -> None:
        self._config = config
        self._client = client
        self._replaced = replaced
        self._lock = BoundedSemaphore()
        self._sure_at = -1
        self._asked_at = 0.0
        self._sure_for = jittered(SURE_FOR)
        self._backoff = Backoff()
        self._ask_at = 0.0
        self.address = ""
        self.life: Life | None = None

    def register(self) -> None:
        """Register within REGISTER_TIMEOUT.

        Raises ManagerAway when there was no time for more, KeyRefused and AgentUnknown.
        """
        until = time.monotonic() + self._config.register_timeout
        outage = Outage("the Manager is there")
        while self.life is None:
            try:
                self.confirm()
            except ManagerAway as error:
                left = until - time.monotonic()
                if left <= 0 or (error.retry_after or 0) >= left:
                    raise
                # Whatever the back-off says, the last attempt is made when the time is over.
                pause = min(error.again_in, left)
                outage.record_failure("not registered yet", error, retry_in=round(pause, 1))
                gevent.sleep(pause)
                self.retry_now()
        outage.record_success()

    def confirm(self, within: float | None = None) -> Life:
        """The Manager's life, from its last answer to a registration.

        It is asked for again if a call has failed since that answer, or if the answer is more
        than `within` seconds old (by default about SURE_FOR). A Manager that was away may have
        come back without its tasks, and its task 7 is then not the one whose result waits here.
        Raises ManagerAway, KeyRefused and AgentUnknown.
        """
        with self._lock:
            limit = self._sure_for if within is None else within
            now = time.monotonic()
            sure = self._sure_at == self._client.failures and now - self._asked_at <= limit
            if self.life is None or not sure:
                failures = self._client.failures
                self._set(self._ask_when_due())
                self._sure_at, self._asked_at = failures, now
            assert self.life
            return self.life

    def retry_now(self) -> None:
        """Let the next caller of `confirm` ask at once."""
        self._ask_at = 0.0

    def _ask_when_due(self) -> Life:
        left = self._ask_at - time.monotonic()
        if left > 0:
            raise ManagerAway("the Manager is away", left)
        try:
            self.address = self._config.advertise_address or self._route_address()
            record = self._client.register(self.address, host.operating_system())
        except ManagerUnavailable as error:
            pause = self._backoff.next(error)
            self._ask_at = time.monotonic() + pause
            raise ManagerAway(str(error), pause, error.retry_after) from error
        self._backoff.reset()
        return Life.of(self._config.manager_url, record)

    def _set(self, life: Life) -> None:
        if self.life is None:
            log.info("registered", agent_id=life.agent_id, address=self.address)
        elif self.life != life:
            log.error(
                "the Manager was replaced: the tasks in hand belong to the previous one",
                manager_url=life.manager_url,
                agent_id=life.agent_id,
                registered=life.registered,
            )
            self._replaced()
        self.life = life

    def _route_address(self) -> str:
        url = self._config.manager_url
        silence = ManagerUnavailable(f"no route to {url}: its name was not resolved in time")
        try:
            with gevent.Timeout(LOOKUP_DEADLINE, silence):
                return host.local_address(url)
        except OSError as error:
            raise ManagerUnavailable(f"no route to {url}: {error}") from error
