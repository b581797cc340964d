"""What version 0.1.0 reads in a state directory, as its code had it."""

import zlib
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct


class Task(Struct, frozen=True):
    """A claimed task."""

    id: int
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    status: str = "accepted"
    unreadable: str = ""


class Life(Struct, frozen=True):
    """The Manager that handed it out; compared as a whole with the one of now."""

    manager_url: str
    agent_id: int
    registered: str


class Claimed(Struct, frozen=True):
    """A task with its origin and the key of its claim."""

    task: Task
    life: Life
    key: str


class ProcessIdentity(Struct, frozen=True):
    """A process."""

    pid: int
    start_time: int
    boot_id: str


class Report(Struct):
    """What is said of a test beside its document."""

    version: str = ""
    iperf3_version: str = ""
    argv: list[str] = []
    attempts: int = 0
    started_at: str = ""
    finished_at: str = ""
    interface: str = ""
    mtu: int = 0
    speed_mbps: int = 0
    kernel: str = ""
    congestion: str = ""
    warnings: list[str] = []
    error_class: str = ""
    ended: str = ""
    truncated: str = ""


class Document(Struct, frozen=True):
    """A part of a file."""

    path: str
    start: int
    end: int


class Figures(Struct, frozen=True):
    """What was measured."""

    direction: str = "forward"
    sent: float | None = None
    received: float | None = None
    retransmits: float | None = None
    jitter_ms: float | None = None
    lost_percent: float | None = None
    rates: list[float] = []


class Outcome(Struct, frozen=True):
    """What became of a task."""

    status: Literal["succeeded", "failed"]
    report: Report
    exit_code: int = 0
    stderr: str = ""
    answer: dict[str, bool | int] = {}
    document: Document | None = None
    final: bool = True
    figures: Figures | None = None


class Parcel(Struct):
    """A record in outbox/."""

    number: int
    claimed: Claimed
    outcome: Outcome
    idempotency_key: str
    checksum: int = 0
    saved: bool = False


class ChildRecord(Struct, frozen=True):
    """A child of a task."""

    identity: ProcessIdentity | None
    report: Report


class TaskRecord(Struct):
    """A task in the journal."""

    claimed: Claimed
    child: ChildRecord | None = None
    reported: bool = False


class Line(Struct):
    """A line of the journal."""

    key: str = ""
    task: TaskRecord | None = None
    settled: str = ""


def read_parcel(path: Path) -> Parcel:
    """A record, whose document has the checksum that it names."""
    parcel = msgspec.json.decode(_unframe(path.read_bytes().removesuffix(b"\n")), type=Parcel)
    assert parcel.number == int(path.stem)
    if parcel.outcome.document:
        assert zlib.crc32(path.with_suffix(".document").read_bytes()) == parcel.checksum
    return parcel


def read_journal(path: Path) -> tuple[str, dict[str, TaskRecord], set[str]]:
    """The key of the next claim, the unsettled tasks by their keys, and the settled keys."""
    key, tasks, settled = "", dict[str, TaskRecord](), set[str]()
    for raw in path.read_bytes().splitlines():
        line = msgspec.json.decode(_unframe(raw), type=Line)
        key = line.key or key
        if line.settled:
            settled.add(line.settled)
            tasks.pop(line.settled, None)
        if line.task:
            tasks[line.task.claimed.key] = line.task
    return key, tasks, settled


def _unframe(line: bytes) -> bytes:
    checksum, _, payload = line.partition(b" ")
    assert checksum == b"%08x" % zlib.crc32(payload)
    return payload
