"""An outbox in the test's process with its disk, and the Manager that it delivers to."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.config.settings import read_settings
from agent.manager.api import ManagerClient
from agent.manager.registration import Gate, Registration
from agent.outbox.delivery import Delivery
from agent.outbox.queue import Outbox
from agent.protocol import Claimed, Document, Origin, Outcome, Report, Task
from agent.registry import TaskRegistry
from agent.service.supervisor import Supervisor
from agent.state.directory import StateDirectory
from agent.state.journal import Journal
from agent.state.ledger import Ledger
from tests.support.clock import Clock
from tests.support.faulty_manager import FaultyManager, Request
from tests.support.sockets import client_of

ROOMY = 64 * 1024**2
ORIGIN = Origin("http://manager", 1, "")


def claimed(
    task_id: int,
    task_type: str = "iperf_client_run",
    origin: Origin = ORIGIN,
    created_at: str | None = None,
) -> Claimed:
    """A task as a claim brought it."""
    task = Task(task_id, task_type, created_at=created_at)
    return Claimed(task, origin, f"key of {task_id}")


def change(journal: Journal, task: Claimed, **values: object) -> None:
    """Note something new of a task."""
    record = journal.of(task)
    for name, value in values.items():
        setattr(record, name, value)
    journal.note(record)


@dataclass
class Post:
    """An outbox and its collaborators."""

    manager: FaultyManager
    client: ManagerClient
    supervisor: Supervisor
    registration: Registration
    gate: Gate
    ledger: Ledger
    registry: TaskRegistry
    outbox: Outbox

    @property
    def state(self) -> StateDirectory:
        """Its state directory."""
        return self.ledger.state

    @property
    def journal(self) -> Journal:
        """Its journal."""
        return self.ledger.journal

    def put(self, task_id: int, outcome: Outcome) -> None:
        """An outcome of a task that this Manager, as it is now, handed out."""
        self.outbox.put(self.claimed(task_id), outcome)

    def send_started(self, task_id: int, pid: int) -> None:
        """The same with `started`."""
        self.outbox.send_started(self.claimed(task_id), pid)

    def claimed(self, task_id: int) -> Claimed:
        """A task that this Manager, as it is now, handed out."""
        assert self.registration.origin
        return claimed(task_id, origin=self.registration.origin)

    def files(self) -> list[str]:
        """The names of what waits on the disk, or was set aside or kept there.

        A settled record is left out: it goes with the next look after the disk.
        """
        return sorted(
            f"{below.name}/{file.name}"
            for below in (self.state.outbox, self.state.rejected, self.state.kept)
            for file in below.iterdir()
            if file.suffix != ".settled"
        )


def post_to(
    manager: FaultyManager, directory: Path, max_result_bytes: int = ROOMY, start: bool = True
) -> Post:
    """An outbox for that Manager, which registers whoever asks, unless the test says otherwise."""
    manager.registers = True
    settings = read_settings(
        {"manager_url": manager.url, "advertise_address": "127.0.0.1"}, {"AGENT_KEY": "key-1"}
    )
    client, supervisor, registry = client_of(manager), Supervisor(), TaskRegistry()
    registration = Registration(settings, client, lambda: None)
    registration.register()
    gate = Gate(registration)
    ledger = Ledger(StateDirectory(directory))
    delivery = Delivery(client, gate, ledger, registry, max_result_bytes)
    outbox = Outbox(delivery, supervisor.spawn)
    if start:
        outbox.start()
    return Post(manager, client, supervisor, registration, gate, ledger, registry, outbox)


def task_of(request: Request) -> int:
    """The task that a `started` or a `result` is about."""
    return int(request.path.split("/")[-2])


def with_document(path: Path, content: bytes) -> Outcome:
    """An outcome whose document fills a file."""
    path.write_bytes(content)
    return Outcome("succeeded", Report(version="1"), document=Document(str(path), 0, len(content)))


def silent_for(post: Post, clock: Clock, seconds: float) -> None:
    """Let no heartbeat be answered for so long."""
    post.registration.record_heartbeat(answered=True)
    for _ in range(3):
        clock.now += seconds / 3
        post.registration.record_heartbeat(answered=False)


def refuse(
    monkeypatch: pytest.MonkeyPatch, holder: object, name: str, number: int, only: str = ""
) -> None:
    """Let a function fail for that reason, for paths with that in their name."""
    real = getattr(holder, name)

    def refused(path: Path) -> object:
        if only in str(path):
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    monkeypatch.setattr(holder, name, refused)
