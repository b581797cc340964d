"""The dev Manager's memory, and the file that keeps it over a restart."""

import os
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from agent.dev.errors import NotFound, StateUnwritable
from agent.dev.store.records import Exercise, StoredAgent, StoredTask, Test
from agent.errors import ConfigError

FORMAT = "iperf-agent dev Manager 1"

_Record = TypeVar("_Record")


class State(Struct):
    """Every record by its id.

    `claims` remembers, for each agent, which task an Idempotency-Key obtained; `cancels` lists,
    for each agent, the tasks that were canceled under its hands and that it has yet to report.
    """

    format: str = FORMAT
    agents: dict[int, StoredAgent] = {}
    exercises: dict[int, Exercise] = {}
    tests: dict[int, Test] = {}
    tasks: dict[int, StoredTask] = {}
    claims: dict[int, dict[str, int]] = {}
    cancels: dict[int, list[int]] = {}


class _Header(Struct):
    format: str = ""


def load(path: Path) -> State:
    """The state in the file, or an empty one when there is no such file.

    Raises ConfigError when the file cannot be read or is not of this format.
    """
    try:
        content = path.read_bytes()
        found = msgspec.json.decode(content, type=_Header).format
        if found != FORMAT:
            raise ConfigError(f"--state {path}: not a state file of this version ({FORMAT!r})")
        return msgspec.json.decode(content, type=State)
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise ConfigError(f"--state {path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--state {path}: not a state file: {error}") from error


def save(state: State, path: Path) -> None:
    """Replace the file by the state, readable by its owner alone: it holds the agents' keys.

    What is saved outlives the process, not the machine: nothing is synced to the disk. Raises
    StateUnwritable; the old file is then still whole.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(state))
        fresh.replace(path)
    except OSError as error:
        raise StateUnwritable(f"--state {path}: cannot be written: {error.strerror}") from error


def find(records: dict[int, _Record], record_id: int, kind: str) -> _Record:
    """The record of that id; raises NotFound, which calls it a `kind`."""
    if record_id not in records:
        raise NotFound(f"no {kind} has the id {record_id}")
    return records[record_id]
