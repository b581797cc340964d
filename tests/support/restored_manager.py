"""A Manager that was restored from a backup: it gives numbers of tasks a second time."""

from collections.abc import Callable
from typing import Any

from tests.support.faulty_manager import FaultyManager, Request, reply, well

FIRST = "2026-01-02T03:04:05.250000+00:00"
SECOND = "2026-01-03T00:00:00Z"


class RestoredManager(FaultyManager):
    """Hands out what a test gives it, and knows one task of each number: the newest.

    `refuse` may answer in its place; it returns None for calls that are answered as usual.
    """

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.tasks: dict[int, dict[str, Any]] = {}
        self.cancel: list[int] = []
        self.refuse: Callable[[Request], bytes | None] = lambda request: None
        self._pending: list[dict[str, Any]] = []

    def give(self, task_type: str, created_at: str | None = FIRST, **payload: Any) -> None:
        """Hand out task 7 with the next claim."""
        task = {"id": 7, "type": task_type, "payload": payload}
        self._pending.append(task if created_at is None else {**task, "created_at": created_at})

    def sent(self, call: str) -> list[Any]:
        """The bodies of all calls of that name."""
        return [request.json() for request in self.requests if request.call == call]

    def running(self) -> list[tuple[int, int]]:
        """The task and the port of each row in the newest heartbeat."""
        beats = self.sent("heartbeat")
        return [(row["task_id"], row["port"]) for row in beats[-1]["running"]] if beats else []

    def _answer(self, request: Request) -> bytes:
        refused = self.refuse(request)
        if refused is not None:
            return refused
        if request.call == "heartbeat":
            return reply({"pull_tasks": True, "cancel": self.cancel})
        if request.call == "claim" and self._pending:
            task = self._pending.pop(0)
            self.tasks[task["id"]] = task
            return reply({"task": task})
        if request.call in ("started", "result"):
            known = self.tasks[int(request.path.split("/")[-2])]
            return reply({key: value for key, value in known.items() if key != "payload"})
        return well(request)
