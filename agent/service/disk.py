"""The disk loop: tries again what could not be read or written, and enforces the quota."""

from collections.abc import Callable

from gevent.event import Event

from agent.errors import StateUnusable
from agent.state.ledger import Ledger

# Seconds between two looks.
LOOK = 5.0


def watch_disk(ledger: Ledger, recover: Callable[[], None], stop: Event) -> None:
    """Look after the state directory until `stop`.

    `recover` is called while something of the previous run is unread. The disk is left alone
    while nothing was read or written since the last look.
    """
    state, seen = ledger.state, -1
    while not stop.wait(LOOK):
        if state.runs == seen and not ledger.is_behind:
            continue
        # A write that fails during the look is a new trouble, which this look did not try.
        tried, failed = bool(state.trouble), False
        # Each of them, as one may make room for another.
        for step in (state.look, recover if ledger.unread else _nothing, ledger.mend):
            try:
                step()
            except StateUnusable:
                failed = True
        if failed:
            continue
        seen = state.runs
        if tried:
            state.end_trouble()


def _nothing() -> None:
    """Recover nothing: all was read."""
