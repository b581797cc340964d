"""One iperf3 child: started, signalled, waited for until it ends or must be ended."""

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path

import gevent
import structlog
from gevent.event import Event

from agent.errors import TaskError, class_of
from agent.files import Whose, discard, whose
from agent.native_threads import Looks
from agent.process.identity import ProcessIdentity, identify, open_pidfd
from agent.process.output import in_thread, read_part, size_of
from agent.process.spawn import NO_SECRETS, signal_group, spawn, spawn_error

STDERR_KEPT = 64 * 1024
# Seconds that are waited for a look at a child's output.
LOOK_TAKES = 1.0

log = structlog.get_logger()


class Ending(Enum):
    """Why the wait for a child is over."""

    ENDED = "it ended by itself"
    STOPPED = "the agent stopped it"
    TIME = "its time is over"
    OUTPUT = "it wrote too much"


class ChildProcess:
    """A running child. Its stdout goes to the file `stdout`, its stderr to `stderr`.

    `ended` is set when the child has ended and was reaped. `flooded` says in words which of the
    files is too large, once one of the `looks` has found that. `sizes` are those of the files, in
    bytes, and `has_grown` is set while they are not those that the last look has `seen`. `identity`
    lets the agent's next run find the child; it is None off Linux, and if that ended at once.
    """

    def __init__(
        self, argv: list[str], stdout: Path, stderr: Path, secrets: Mapping[str, str] = NO_SECRETS
    ) -> None:
        """Start the child, as `spawn` does; raises TaskError when that fails."""
        self.stdout = stdout
        self.stderr = stderr
        self.flooded = ""
        self.looks = Looks[tuple[int, int] | None](LOOK_TAKES)
        self.sizes: tuple[int, int] = (0, 0)
        self.seen: tuple[int, int] | None = (0, 0)
        self.has_grown = Event()
        self._was_stopped = False
        self._may_lead = True
        try:
            self._popen = spawn(argv, stdout, stderr, secrets=secrets)
        except OSError as error:
            in_thread(discard, stdout, stderr)
            if error.filename in (str(stdout), str(stderr)) and whose(error) is not Whose.HOST:
                words = f"{stdout.parent} cannot be written: {error.strerror}: mend that"
                raise TaskError(class_of(error), words) from error
            raise spawn_error(argv[0], error) from error
        self.pid: int = self._popen.pid
        self.ended = Event()
        self._popen.rawlink(lambda _: self.ended.set())
        # Nobody else can get the pid before the child is reaped, so both of these are the
        # child's: the descriptor need not be compared with the identity.
        self._pidfd = open_pidfd(self.pid)
        self.identity: ProcessIdentity | None = identify(self.pid)
        if self.exit_code is not None:
            # It was reaped already, and they may be another process's.
            self.close()
            self.identity = None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for the signal that ended it; None while it runs."""
        code: int | None = self._popen.poll()
        return code

    @property
    def fate(self) -> str:
        """How a child that has ended came to its end."""
        if not self._was_stopped:
            return "ended by itself"
        return "killed" if self.exit_code == -signal.SIGKILL else "terminated"

    def stop(self, grace: float, force: Event) -> None:
        """Send TERM, then KILL after `grace` seconds or once `force` is set; wait for the end.

        All that it has started in its process group ends with it, even if it has ended by itself.
        """
        until = time.monotonic() + grace
        if self.exit_code is None:
            self._was_stopped = True
            self._signal(signal.SIGTERM)
            # A stopped child gets TERM only when it continues.
            self._signal(signal.SIGCONT)
            gevent.wait([self.ended, force], timeout=grace, count=1)
            self._signal(signal.SIGKILL)
            self.ended.wait()
        # The kernel gives the number of a group to nobody else while it has members. Later it may,
        # so this is done once.
        while self._may_lead and signal_group(self.pid, 0):
            if self.fate != "terminated" or force.is_set() or time.monotonic() >= until:
                signal_group(self.pid, signal.SIGKILL)
                break
            gevent.sleep(0.01)
        self._may_lead = False

    def close(self) -> int:
        """Kill a child that still runs, and free what it holds; returns its exit code."""
        self.stop(0, Event())
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        # gevent would remember for a minute how the child ended.
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        code: int = self._popen.wait()
        return code

    def take_stderr(self) -> str:
        """The last 64 KiB that it wrote to stderr; the file is removed.

        Empty when they cannot be read: that is no reason to lose a test.
        """
        try:
            start = max(0, in_thread(size_of, self.stderr) - STDERR_KEPT)
            end = in_thread(read_part, self.stderr, start, STDERR_KEPT)
            return end.decode(errors="replace").strip()
        except OSError as error:
            log.warning("the stderr of a child cannot be read", pid=self.pid, error=str(error))
            return ""
        finally:
            in_thread(discard, self.stderr)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the child and its group, and nobody else: while its pidfd finds it not reaped."""
        if self.exit_code is not None:
            return
        with suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, 0)
            signal_group(self.pid, number)
