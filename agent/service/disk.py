"""The disk loop: tries again what could not be read or written, and enforces the quota."""

import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
from gevent.event import Event

from agent.errors import StateUnusable
from agent.files import write_whole
from agent.state.directory import StateDirectory
from agent.state.ledger import Ledger

# Seconds between two looks.
LOOK = 5.0

log = structlog.get_logger()


def watch_disk(ledger: Ledger, max_bytes: int, recover: Callable[[], None], stop: Event) -> None:
    """Look after the state directory, which may hold `max_bytes`, until `stop`.

    `recover` is called while something of the previous run is unread. The disk is left alone
    while nothing was read or written since the last look.
    """
    state, seen = ledger.state, -1
    look: Callable[[], None] = partial(state.write, _look, state, max_bytes)
    while not stop.wait(LOOK):
        if state.runs == seen and not ledger.is_behind:
            continue
        # A write that fails during the look is a new trouble, which this look did not try.
        tried, failed = bool(state.trouble), False
        # Each of them, as one may make room for another.
        unread = [recover] if ledger.unread else []
        for step in (look, *unread, ledger.mend):
            try:
                step()
            except StateUnusable:
                failed = True
        if failed:
            continue
        seen = state.runs
        if tried:
            state.trouble = ""
            log.info("the state directory can be written again", path=state.path)


def _look(state: StateDirectory, max_bytes: int) -> None:
    """Try a write if one failed, and remove the oldest kept documents while there is too much."""
    state.make_directories()
    if state.trouble:
        write_whole(state.path / "writable", [])
    files = sorted(map(_seen, state.path.rglob("*")))
    used = sum(size for _, size, _ in files)
    for _, size, file in files:
        if used > max_bytes and size and file.parent == state.kept:
            file.unlink()
            used -= size
    if used > max_bytes:
        advice = "empty rejected/, or raise STATE_MAX_BYTES"
        raise OSError(f"{used} bytes are over STATE_MAX_BYTES: {advice}")


def _seen(file: Path) -> tuple[float, int, Path]:
    """When a file was changed, and the bytes that it takes; zeros if it cannot be looked at."""
    try:
        found = file.stat()
    except OSError:
        return 0.0, 0, file
    return found.st_mtime, found.st_blocks * 512 if stat.S_ISREG(found.st_mode) else 0, file
