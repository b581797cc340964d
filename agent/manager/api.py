"""The Manager's calls, as docs/protocol.md has them."""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from agent import protocol
from agent.config.settings import Config
from agent.errors import ManagerUnavailable, TaskReplaced
from agent.manager.transport import KEY_HEADER, Answer, Transport
from agent.manager.upload import Body
from agent.metrics import Metrics
from agent.text import to_json

# Seconds for a whole call, and for a heartbeat; a claim may be held for its wait beyond that. A
# result has no total: it may take as long as it makes progress.
DEADLINE = 10.0
HEARTBEAT_DEADLINE = 4.0
RESULT_STALL = 30.0
LONG_POLL_WAIT = 20
HEALTH = "/healthz"

# How the answer to a claim begins: the task's id, of at most 64 bits, and its type.
_TASK_HEAD = re.compile(
    rb'\s*{\s*"task"\s*:\s*{\s*"id"\s*:\s*(\d{1,19})\s*,\s*"type"\s*:\s*"(?:([\w-]{1,64})")?'
)
# What tells in the answer to a result which task that is, before the result itself.
_ANSWER_HEAD = re.compile(rb'\s*{\s*"id"\s*:\s*(\d{1,19})\b')
_CREATED_AT = re.compile(rb'"created_at"\s*:\s*"([^"]{1,64})"')

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Claim:
    """What a claim brought. `held` says that the Manager supports long polling."""

    task: protocol.Task | None
    held: bool


class ManagerClient:
    """The five calls of an agent, and the check of the Manager's health.

    Each raises ManagerUnavailable, KeyRefused or AgentUnknown; the two about a task also raise
    TaskRefused, which is TaskReplaced when the answer names another task of that number. `key`
    gives the registration key as it is now.
    """

    def __init__(
        self, config: Config, key: Callable[[], str], metrics: Metrics | None = None
    ) -> None:
        self._key = key
        self._headers = {
            "X-AGENT-NAME": config.agent_name,
            # Not kept on the disk, which a cloned machine has as well.
            "X-Agent-Instance": str(uuid.uuid4()),
            "X-API-Version": str(config.api_version),
            "Content-Type": "application/json",
        }
        self._transport = Transport(config, metrics or Metrics())

    def register(self, ip_address: str, operating_system: str) -> protocol.AgentRecord:
        """Register the agent; the answer also has the key, which is not read."""
        body = {"ip_address": ip_address, "operating_system": operating_system}
        answer = self._send("register", to_json(body), DEADLINE)
        return self._decode("register", answer, protocol.AgentRecord)

    def send_heartbeat(
        self, ip_address: str, running: list[protocol.RunningRow]
    ) -> protocol.HeartbeatAnswer:
        """Report what runs now."""
        body = {"ip_address": ip_address, "running": running}
        answer = self._send("heartbeat", to_json(body), HEARTBEAT_DEADLINE)
        return self._decode("heartbeat", answer, protocol.HeartbeatAnswer)

    def claim(self, idempotency_key: str) -> Claim:
        """Ask for the oldest pending task; with long polling the call is held until there is one.

        Of an answer that is too large, too deep or not UTF-8 only the beginning is read. If its
        task were ignored, each replay would bring it again, and no other task would ever come.
        """
        deadline, wait = DEADLINE + LONG_POLL_WAIT, f"wait={LONG_POLL_WAIT}"
        answer = self._send("tasks/claim", b"{}", deadline, idempotency_key, Prefer=wait)
        held = answer.headers.get("Preference-Applied", "").startswith("wait")
        try:
            task = self._decode("tasks/claim", answer, protocol.ClaimAnswer).task
        except ManagerUnavailable as error:
            head = _TASK_HEAD.match(answer.content)
            if head is None or answer.is_cut_short:
                raise
            task = protocol.Task(int(head[1]), (head[2] or b"").decode(), unreadable=str(error))
        return Claim(task, held)

    def send_started(self, task: protocol.Task, pid: int, idempotency_key: str) -> None:
        """Say that a task's process runs."""
        call = f"tasks/{task.id}/started"
        answer = self._send(call, to_json({"pid": pid}), DEADLINE, idempotency_key)
        _compare(call, task, self._decode(call, answer, protocol.Acknowledged))

    def send_result(self, task: protocol.Task, body: Body, idempotency_key: str) -> None:
        """Deliver a result; gives up after RESULT_STALL seconds without progress."""
        call = f"tasks/{task.id}/result"
        answer = self._send(call, body, RESULT_STALL, idempotency_key)
        # The answer is the whole task with the result that was just sent. Of a large one, the
        # beginning must be enough.
        if answer.whole:
            taken_for = self._decode(call, answer, protocol.Acknowledged)
        elif head := _ANSWER_HEAD.match(answer.content):
            # The payload stands before the task's own moment, and may have any keys.
            moments = _CREATED_AT.findall(answer.content.partition(b'"result"')[0])
            moment = moments[-1].decode(errors="replace") if moments else None
            taken_for = protocol.Acknowledged(int(head[1]), created_at=moment)
        else:
            raise ManagerUnavailable(f"{call}: a large answer that is not the Manager's")
        _compare(call, task, taken_for)

    def ask_health(self) -> tuple[int, Answer]:
        """What is answered to whom asks for the Manager's health; no agent and no key is named."""
        return self._transport.ask(HEALTH, b"", {}, DEADLINE)

    def _send(
        self, call: str, body: bytes | Body, deadline: float, idempotency_key: str = "", **more: str
    ) -> Answer:
        idempotency = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        headers = {KEY_HEADER: self._key(), **self._headers, **idempotency, **more}
        return self._transport.call(f"/v1/agent/{call}", body, headers, deadline)

    def _decode(self, call: str, answer: Answer, kind: type[_Answer]) -> _Answer:
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            found = "other JSON" if isinstance(error, msgspec.ValidationError) else "no JSON"
            found = "HTML" if answer.content.lstrip().startswith(b"<") else found
            words = f"{call}: the answer is not the Manager's, but {found}"
            if suspect := self._transport.suspect(200):
                words += f": {suspect}"
            raise ManagerUnavailable(words) from error


def _compare(call: str, task: protocol.Task, taken_for: protocol.Acknowledged) -> None:
    """Raise TaskReplaced if the Manager took the call for another task of that number."""
    if taken_for.id != task.id:
        raise ManagerUnavailable(f"{call}: the answer is about task {taken_for.id}")
    if not task.is_same(taken_for):
        words = f"the Manager has another task {task.id}, created at {taken_for.created_at}"
        raise TaskReplaced(f"{call}: {words}")
