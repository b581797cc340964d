"""A Manager that hands out the tasks that a test gives it, and takes the results that it likes."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tests.support.faulty_manager import FaultyManager, Request, raw_reply, reply, well
from tests.support.record_state import CREATED_AT, REGISTERED


class TaskManager(FaultyManager):
    """`tasks` are handed out in order, `takes` says which results are taken: others get a 500.

    Those that it `refuses` are refused for good.
    `taken` has the results that were taken by task, and `keys` the Idempotency-Key of the claim
    that brought a task. The tasks in `canceled` are named in the answers to heartbeats.
    """

    def __init__(self, *tasks: dict[str, Any]) -> None:
        super().__init__(self._answer)
        self.tasks = list(tasks)
        self.takes: Callable[[int], bool] = lambda number: True
        self.refuses: Callable[[int], bool] = lambda number: False
        self.taken: defaultdict[int, list[Request]] = defaultdict(list)
        self.keys: dict[int, str] = {}
        self.canceled: list[int] = []

    def outcome(self, number: int) -> Any:
        """The newest result of a task, once it has come."""
        self.wait_for(lambda: self.taken[number])
        return self.taken[number][-1].json()

    def wait_for_calls(self, call: str, count: int) -> None:
        """Wait until so many more of these calls have come."""
        before = self.calls().count(call)
        self.wait_for(lambda: self.calls().count(call) >= before + count)

    def _answer(self, request: Request) -> bytes:
        if request.call == "register":
            return reply(REGISTERED)
        if request.call == "heartbeat":
            return reply({"pull_tasks": True, "cancel": self.canceled})
        if request.call == "claim" and self.tasks:
            task = self.tasks.pop(0)
            self.keys[task["id"]] = request.headers["idempotency-key"]
            return reply({"task": task})
        if request.call != "result":
            return well(request)
        if len(request.body) < int(request.headers["content-length"]):
            # Broken off by the agent.
            return b""
        number = int(request.path.split("/")[-2])
        if self.refuses(number):
            return reply({"error": "conflict"}, 409)
        if not self.takes(number):
            return raw_reply(b"", 500)
        self.taken[number].append(request)
        status = request.json()["status"]
        return reply({"id": number, "status": status, "created_at": CREATED_AT})
