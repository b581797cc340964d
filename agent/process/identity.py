"""The identity of a process: its pid alone may belong to another process by now.

The kernel's start time counts from the boot; psutil's `create_time()` moves with the wall clock.
Off Linux, without /proc and pidfds, nothing can be proven, so no process is touched.
"""

import os
import signal
import sys
from pathlib import Path
from select import POLLIN

import msgspec
from gevent.select import poll

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Field 22 of /proc/PID/stat (proc(5)). Counted from field 3, the first one behind the name.
_START_TIME = 22 - 3


class ProcessIdentity(msgspec.Struct, frozen=True):
    """What tells a process from every other that had or will have its pid.

    `start_time` is in clock ticks since the boot that `boot_id` names.
    """

    pid: int
    start_time: int
    boot_id: str


def identify(pid: int) -> ProcessIdentity | None:
    """The process that has this pid now, even a zombie; None when there is none, or no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        boot_id = _BOOT_ID.read_text().strip()
    except OSError:
        return None
    # The name is in parentheses, and may contain parentheses and spaces.
    fields = stat.rpartition(b")")[2].split()
    return ProcessIdentity(pid, int(fields[_START_TIME]), boot_id)


def open_pidfd(pid: int) -> int:
    """A descriptor of the process that has this pid now; -1 when there is none, or off Linux."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def stop_orphan(identity: ProcessIdentity, grace: float) -> bool:
    """Stop a child that the agent's previous run left: TERM, then KILL after `grace` seconds.

    Returns once it is gone: True if it ran and was stopped. A process that cannot be proven to
    be that child is left alone.
    """
    pidfd = open_pidfd(identity.pid)
    if pidfd < 0:
        return False
    assert sys.platform == "linux"
    try:
        # Compared after opening: if the pid changes hands in between, the descriptor belongs to a
        # process that is gone, and a signal through it reaches nobody.
        if identify(identity.pid) != identity or _wait_for_end(pidfd, 0):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        # A stopped process gets TERM only when it continues.
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        if not _wait_for_end(pidfd, grace):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _wait_for_end(pidfd, None)
    except ProcessLookupError:
        # It ended by itself meanwhile.
        return True
    except PermissionError:
        return False
    finally:
        os.close(pidfd)
    return True


def _wait_for_end(pidfd: int, seconds: float | None) -> bool:
    """Wait for the end of the process; True if it has ended, False after `seconds`.

    A zombie has ended, whoever is to reap it.
    """
    # Not select(), which takes no descriptor above 1023.
    waiting = poll()
    waiting.register(pidfd, POLLIN)
    return bool(waiting.poll(None if seconds is None else seconds * 1000))
