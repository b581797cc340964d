"""The Manager's calls, as docs/protocol.md has them."""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from agent import protocol
from agent.config.settings import Config
from agent.errors import ManagerUnavailable
from agent.manager.transport import KEY_HEADER, Answer, Transport
from agent.manager.upload import Body
from agent.metrics import Metrics
from agent.text import to_json

# Seconds for a whole call. A result has no total: it may take as long as it makes progress.
REGISTER_DEADLINE = 10.0
HEARTBEAT_DEADLINE = 4.0
CLAIM_DEADLINE = 10.0
STARTED_DEADLINE = 10.0
RESULT_STALL = 30.0
LONG_POLL_WAIT = 20

# How the answer to a claim begins: the task's id, of at most 64 bits, and its type.
_TASK_HEAD = re.compile(
    rb'\s*{\s*"task"\s*:\s*{\s*"id"\s*:\s*(\d{1,19})\s*,\s*"type"\s*:\s*"(?:([\w-]{1,64})")?'
)

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Claim:
    """What a claim brought. `held` says that the Manager supports long polling."""

    task: protocol.Task | None
    held: bool


class ManagerClient:
    """The five calls of an agent, and the check of the Manager's health.

    Each raises ManagerUnavailable, KeyRefused or AgentUnknown; the two about a task also raise
    TaskRefused. `failures` counts the calls without a usable answer: after one, another Manager
    may have taken the place of the first. `key` gives the registration key as it is now.
    """

    def __init__(
        self, config: Config, key: Callable[[], str], metrics: Metrics | None = None
    ) -> None:
        self._config = config
        self._key = key
        self._transport = Transport(config, metrics or Metrics())
        self.failures = 0

    def register(self, ip_address: str, operating_system: str) -> protocol.AgentRecord:
        """Register the agent; the answer also has the key, which is not read."""
        body = protocol.RegisterBody(ip_address, operating_system)
        return self._post("register", body, protocol.AgentRecord, REGISTER_DEADLINE)

    def send_heartbeat(
        self, ip_address: str, running: list[protocol.RunningRow]
    ) -> protocol.HeartbeatAnswer:
        """Report what runs now."""
        body = protocol.HeartbeatBody(ip_address, running)
        return self._post("heartbeat", body, protocol.HeartbeatAnswer, HEARTBEAT_DEADLINE)

    def claim(self, idempotency_key: str) -> Claim:
        """Ask for the oldest pending task; with long polling the call is held until there is one.

        Of an answer that is too large, too deep or not UTF-8 only the beginning is read. If its
        task were ignored, each replay would bring it again, and no other task would ever come.
        """
        prefer = {"Prefer": f"wait={LONG_POLL_WAIT}"}
        deadline = CLAIM_DEADLINE + LONG_POLL_WAIT
        answer = self._send("tasks/claim", b"{}", deadline, idempotency_key, prefer)
        held = answer.headers.get("Preference-Applied", "").startswith("wait")
        try:
            task = self._decode("tasks/claim", answer, protocol.ClaimAnswer).task
        except ManagerUnavailable as error:
            head = _TASK_HEAD.match(answer.content)
            if head is None:
                raise
            task = protocol.Task(int(head[1]), (head[2] or b"").decode(), unreadable=str(error))
        return Claim(task, held)

    def send_started(self, task_id: int, pid: int, idempotency_key: str) -> None:
        """Say that a task's process runs."""
        call, body = f"tasks/{task_id}/started", protocol.StartedBody(pid)
        self._post(call, body, protocol.Acknowledged, STARTED_DEADLINE, idempotency_key)

    def send_result(self, task_id: int, body: Body, idempotency_key: str) -> None:
        """Deliver a result; gives up after RESULT_STALL seconds without progress."""
        call = f"tasks/{task_id}/result"
        answer = self._send(call, body, RESULT_STALL, idempotency_key)
        # The answer is the whole task with the result that was just sent. Of a large one, the
        # beginning must be enough.
        if answer.whole:
            self._decode(call, answer, protocol.Acknowledged)
        elif not re.match(rb'\s*{\s*"id"\s*:\s*%d\b' % task_id, answer.content):
            self.failures += 1
            raise ManagerUnavailable(f"{call}: a large answer that is not the Manager's")

    def check_health(self) -> None:
        """Ask whether a Manager is there, without naming or registering an agent."""
        answer = self._transport.call("GET", "/healthz", b"", {}, REGISTER_DEADLINE)
        self._decode("/healthz", answer, protocol.Health)

    def _post(
        self,
        call: str,
        body: msgspec.Struct,
        kind: type[_Answer],
        deadline: float,
        idempotency_key: str | None = None,
    ) -> _Answer:
        data = to_json(body)
        return self._decode(call, self._send(call, data, deadline, idempotency_key), kind)

    def _send(
        self,
        call: str,
        body: bytes | Body,
        deadline: float,
        idempotency_key: str | None = None,
        more_headers: Mapping[str, str] | None = None,
    ) -> Answer:
        headers = {
            "X-AGENT-NAME": self._config.agent_name,
            KEY_HEADER: self._key(),
            "X-API-Version": str(self._config.api_version),
            "Idempotency-Key": idempotency_key or str(uuid.uuid4()),
            "Content-Type": "application/json",
            **(more_headers or {}),
        }
        try:
            return self._transport.call("POST", f"/v1/agent/{call}", body, headers, deadline)
        except ManagerUnavailable:
            self.failures += 1
            raise

    def _decode(self, call: str, answer: Answer, kind: type[_Answer]) -> _Answer:
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.failures += 1
            raise ManagerUnavailable(f"{call}: the answer is not the Manager's: {error}") from error
