"""What the agent tells systemd, as in sd_notify(3): that it is ready, what it does, that it lives.

Without NOTIFY_SOCKET nothing is sent.
"""

import os
import socket

import structlog
from gevent.event import Event

from agent.metrics import Metrics
from agent.registry import TaskRegistry

# Seconds between two looks at whether there is something new to tell.
LOOK = 1.0
# Of the watchdog's time: sd_watchdog_enabled(3) asks for half, and the hub may be late.
WATCHDOG_SHARE = 1 / 3
# Microseconds that a registered agent asks for, at each look, until its first answered heartbeat.
MORE_TIME = 10_000_000

log = structlog.get_logger()


def notify(text: str) -> bool:
    """Send assignments, one a line, to systemd if it listens; False if it has no room for them."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return True
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            # gevent tries twice, and returns 0 then.
            return out.sendto(text.encode(), address) > 0
    except OSError as error:
        log.warning("systemd does not listen", error=error.strerror)
    return True


def watchdog_seconds() -> float | None:
    """Seconds without a sign of life after which systemd restarts the agent; None for never."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None


def keep_informed(registry: TaskRegistry, metrics: Metrics, stop: Event) -> None:
    """Tell systemd of the first answered heartbeat, of what runs, and that the hub turns.

    This is a greenlet and not a thread, so that an agent whose hub is blocked does not look alive.
    A Manager that is away does not matter here.
    """
    if not os.environ.get("NOTIFY_SOCKET"):
        return
    limit = watchdog_seconds()
    pause = min(LOOK, limit * WATCHDOG_SHARE) if limit else LOOK
    said = ""
    while not stop.wait(pause):
        tell = ["WATCHDOG=1"] if limit else []
        rows = registry.rows()
        clients = sum(1 for row in rows if row.type == "client")
        state = f"READY=1\nSTATUS={clients} tests and {len(rows) - clients} servers running"
        if metrics.heard_at is None:
            # A Manager that goes away after the registration is no reason for a restart either.
            tell.append(f"EXTEND_TIMEOUT_USEC={MORE_TIME}")
        elif state != said:
            said = state
            tell.append(state)
        if tell and not notify("\n".join(tell)):
            said = ""
