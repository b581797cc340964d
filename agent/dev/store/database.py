"""The dev Manager's memory, and the file that keeps it over a restart."""

from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from agent.dev.errors import StateUnwritable, not_found
from agent.dev.store.records import Exercise, ManagedAgent, ManagedTask, Test
from agent.errors import ConfigError

_Value = TypeVar("_Value")


class State(Struct):
    """Every record by its id.

    `claims` has, for each agent, the task that an Idempotency-Key obtained. `cancels` lists, for
    each agent, the tasks that were canceled while it had them and that it has yet to report.
    """

    format: Literal["iperf-agent dev Manager 1"]
    agents: dict[int, ManagedAgent] = {}
    exercises: dict[int, Exercise] = {}
    tests: dict[int, Test] = {}
    tasks: dict[int, ManagedTask] = {}
    claims: dict[int, dict[str, int]] = {}
    cancels: dict[int, list[int]] = {}


class Database:
    """The state, and the file that it is kept in, if any.

    Whether there are `extensions` is no part of it, but all who change it need to know.
    """

    def __init__(self, path: Path | None, extensions: bool) -> None:
        """Raises ConfigError when the file exists but cannot be used."""
        self.state = (path and _load(path)) or State("iperf-agent dev Manager 1")
        self.extensions = extensions
        self._path = path
        self._dirty = True

    def touch(self) -> None:
        """Note that something changed, heartbeats included; the next `save` writes it."""
        self._dirty = True

    def commit(self, changed: _Value) -> _Value:
        """Write what changed and return it; raises StateUnwritable."""
        self.touch()
        self.save()
        return changed

    def save(self) -> None:
        """Write the file if there is one and it is out of date.

        The owner alone can read it, for it has the agents' keys. What is saved outlives the
        process but not the machine: nothing is synced to the disk. Raises StateUnwritable; the
        old file is then still whole.
        """
        if self._path and self._dirty:
            fresh = self._path.with_name(self._path.name + ".new")
            try:
                fresh.unlink(missing_ok=True)
                fresh.touch(0o600, exist_ok=False)
                fresh.write_bytes(msgspec.json.encode(self.state))
                fresh.replace(self._path)
            except OSError as error:
                words = f"--state {self._path}: cannot be written: {error.strerror}"
                raise StateUnwritable(503, "state_unwritable", words) from error
        self._dirty = False


def find(records: dict[int, _Value], record_id: int, kind: str) -> _Value:
    """The record with that id; raises Refused, whose message calls it a `kind`."""
    if record_id not in records:
        raise not_found(f"no {kind} has the id {record_id}")
    return records[record_id]


def matching(records: dict[int, _Value], **wanted: object) -> list[_Value]:
    """The records by id whose fields have these values; None stands for any."""
    return [
        record
        for record in records.values()
        if all(value in (None, getattr(record, field)) for field, value in wanted.items())
    ]


def _load(path: Path) -> State | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"--state {path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--state {path}: not a state file of this version: {error}") from error
