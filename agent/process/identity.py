"""Which process it is: a pid alone may be somebody else's by now.

The kernel's start time counts from the boot and does not move with the wall clock, as psutil's
`create_time()` does. Without /proc and pidfds, that is off Linux, nothing can be proven, and so
nothing is touched.
"""

import os
import signal
import sys
from pathlib import Path
from select import POLLIN

import msgspec
from gevent.select import poll

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Field 22 of /proc/PID/stat (proc(5)), counted from the state, the first one behind the name.
_START_TIME = 22 - 3


class ProcessIdentity(msgspec.Struct, frozen=True):
    """A process, told from all others that have had or will have its pid.

    `start_time` is in clock ticks since the boot that `boot_id` names.
    """

    pid: int
    start_time: int
    boot_id: str


def identify(pid: int) -> ProcessIdentity | None:
    """The process that has this pid now, a zombie too; None when there is none, or no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        boot_id = _BOOT_ID.read_text().strip()
    except OSError:
        return None
    # The name stands in parentheses and may hold some itself, and spaces.
    fields = stat.rpartition(b")")[2].split()
    return ProcessIdentity(pid, int(fields[_START_TIME]), boot_id)


def open_pidfd(pid: int) -> int:
    """A descriptor of the process that has this pid now, and of no later one; -1 without one."""
    if not hasattr(os, "pidfd_open"):
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def stop_orphan(identity: ProcessIdentity, grace: float) -> bool:
    """Stop a child that a former life of this agent left: TERM, KILL after `grace` seconds.

    Returns whether it ran and was stopped, once it is gone. Anything else that has the pid, and
    what cannot be proven to be that child, is left alone.
    """
    pidfd = open_pidfd(identity.pid)
    if pidfd < 0:
        return False
    try:
        # Compared once the descriptor is there. Should the pid change hands between the two, the
        # descriptor is that of a process which is gone, and a signal through it reaches nobody.
        if identify(identity.pid) != identity or _gone(pidfd, 0):
            return False
        return _stopped(pidfd, grace)
    finally:
        os.close(pidfd)


def _stopped(pidfd: int, grace: float) -> bool:
    assert sys.platform == "linux"
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        # A stopped process gets TERM only when it goes on.
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        if not _gone(pidfd, grace):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _gone(pidfd, None)
    except ProcessLookupError:
        # It ended by itself just now.
        return True
    except PermissionError:
        return False
    return True


def _gone(pidfd: int, seconds: float | None) -> bool:
    """Wait until the process has ended; a zombie has, whoever may reap it."""
    # Not select(): it takes no descriptor above 1023.
    waiting = poll()
    waiting.register(pidfd, POLLIN)
    return bool(waiting.poll(None if seconds is None else seconds * 1000))
