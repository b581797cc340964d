"""One iperf3 child: started in a session of its own, waited for, stopped by TERM, then KILL.

This is the only room that uses gevent.subprocess. `Popen()` yields after the fork, and a greenlet
killed there would lose the child: greenlets that start children are never killed, they are told
by an event.
"""

import ctypes
import errno
import mmap
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import gevent
import structlog
from gevent import subprocess
from gevent.event import Event

from agent.error_classes import ErrorClass
from agent.errors import ChildError
from agent.files import discard
from agent.process.identity import ProcessIdentity, identify, open_pidfd

_PR_SET_PDEATHSIG = 1
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_LIBC = ctypes.CDLL(None)
# What iperf3 needs of the environment. The rest, and above all the key, stays with the agent.
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
STDERR_KEPT = 64 * 1024
# It is not the disk's fault that a file cannot be opened then.
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)

log = structlog.get_logger()


class ChildProcess:
    """A running child of ours. Its stdout goes to the file `stdout`, its stderr to `stderr`.

    An unread pipe would block iperf3's exit, and one that a grandchild holds open would block
    the agent: files do neither. `ended` is set when the child has ended and was reaped.
    `identity` is for whoever finds the child after this agent's death; None off Linux, and when
    the child had ended before it could be taken.
    """

    def __init__(self, argv: list[str], stdout: Path, stderr: Path) -> None:
        """Start the child; raises ChildError when it cannot be."""
        self.argv = argv
        self.stdout = stdout
        self.stderr = stderr
        self._stopped = False
        try:
            with open(stdout, "wb") as out, open(stderr, "wb") as err:
                self._popen = _started(argv, out, err)
        except OSError as error:
            discard(stdout)
            discard(stderr)
            if error.filename in (str(stdout), str(stderr)) and error.errno not in _NO_DESCRIPTOR:
                words = f"{stdout.parent} cannot be written: {error.strerror}: mend that"
                raise ChildError(ErrorClass.STATE_FULL, words) from error
            raise _not_started(argv[0], error) from error
        self.pid: int = self._popen.pid
        self.ended = Event()
        self._popen.rawlink(lambda _: self.ended.set())
        # Until the child is reaped its pid is its own, so that both are the child's and the
        # descriptor needs no comparison with the identity, neither here nor before a signal.
        self._pidfd = open_pidfd(self.pid)
        self.identity: ProcessIdentity | None = identify(self.pid)
        if self.exit_code is not None:
            # Reaped already: they may be somebody else's.
            self.close()
            self.identity = None

    def __enter__(self) -> "ChildProcess":
        """For a block that the child must not outlive, whatever is raised in it."""
        return self

    def __exit__(self, *_: object) -> None:
        if self.exit_code is None:
            self.stop(0, Event())
        self.close()

    def output(self, start: int = 0) -> AbstractContextManager[memoryview]:
        """What it wrote to stdout from byte `start` on, mapped and not read; do not keep it.

        Raises OSError.
        """
        return mapped(self.stdout, start)

    def forget(self, end: int) -> None:
        """Give the disk what stdout holds before byte `end` back, and leave the size as it is.

        The file cannot be cut short instead: the child may write at any moment. Where a file
        system has no holes, the space stays taken until the file is removed. Raises OSError.
        """
        if sys.platform != "linux":
            return
        with open(self.stdout, "rb+") as file:
            mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
            _LIBC.fallocate(file.fileno(), mode, ctypes.c_int64(0), ctypes.c_int64(end))

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for the signal that ended it, or None while it runs."""
        code: int | None = self._popen.poll()
        return code

    @property
    def fate(self) -> str:
        """How a child that has ended came to its end."""
        if not self._stopped:
            return "ended by itself"
        return "killed" if self.exit_code == -signal.SIGKILL else "terminated"

    def stop(self, grace: float, force: Event) -> None:
        """TERM, and KILL after `grace` seconds or once `force` is set; returns when it is gone."""
        self._stopped = self.exit_code is None
        self._signal(signal.SIGTERM)
        # A stopped child gets TERM only when it goes on.
        self._signal(signal.SIGCONT)
        gevent.wait([self.ended, force], timeout=grace, count=1)
        self._signal(signal.SIGKILL)
        self.ended.wait()

    def close(self) -> int:
        """Give the descriptor of a child that has ended back; returns its exit code."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        # gevent keeps how a child ended for a minute, for whoever asks; nobody else will.
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        code = self.exit_code
        assert code is not None
        return code

    def take_stderr(self) -> str:
        """What it wrote to stderr, of that the last 64 KiB; the file is removed.

        Empty where it cannot be read: a test is not lost for want of it.
        """
        try:
            with open(self.stderr, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - STDERR_KEPT))
                return file.read().decode(errors="replace").strip()
        except OSError as error:
            log.warning("the stderr of a child cannot be read", pid=self.pid, error=str(error))
            return ""
        finally:
            discard(self.stderr)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the child and nobody else: through its pidfd, or while it is not reaped."""
        if self.exit_code is not None:
            return
        try:
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                self._popen.send_signal(number)
        except ProcessLookupError:
            return


@contextmanager
def mapped(path: Path, start: int = 0) -> Iterator[memoryview]:
    """A file's content from byte `start` on, mapped and not read; do not keep it."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size <= start:
            yield memoryview(b"")
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            with memoryview(content) as whole, whole[start:] as view:
                yield view


def first_data(path: Path) -> int:
    """Where the part of a file begins that is not the hole at its start; raises OSError.

    To look into a hole of a file on a tmpfs takes room: where there is none it is a SIGBUS.
    """
    with open(path, "rb") as file:
        try:
            return os.lseek(file.fileno(), 0, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return os.fstat(file.fileno()).st_size


def text_output(argv: list[str], timeout: float) -> str:
    """What a short command prints; raises ChildError when it cannot be run or hangs."""
    try:
        command = _started(argv, subprocess.PIPE, subprocess.STDOUT)
        output: bytes = command.communicate(timeout=timeout)[0]
    except OSError as error:
        raise _not_started(argv[0], error) from error
    except subprocess.TimeoutExpired as error:
        # Its children too, or they would hold the pipe.
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        command.wait()
        raise ChildError(
            ErrorClass.OTHER, f"{argv[0]} did not answer within {timeout:g} s"
        ) from error
    return output.decode(errors="replace")


def _started(argv: list[str], out: Any, err: Any) -> Any:
    """A command in a session of its own, which dies with the agent; raises OSError."""
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,  # type: ignore[attr-defined]
        stdout=out,
        stderr=err,
        env=_environment(),
        start_new_session=True,
        preexec_fn=_dying_with(os.getpid()) if sys.platform == "linux" else None,
    )


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}


def _not_started(path: str, error: OSError) -> ChildError:
    if isinstance(error, FileNotFoundError | PermissionError) and error.filename == path:
        remedy = "install iperf3, or set IPERF3_PATH to it"
        return ChildError(
            ErrorClass.IPERF3_MISSING, f"{path} cannot be run ({error.strerror}): {remedy}"
        )
    return ChildError(ErrorClass.OTHER, f"{path} could not be started: {error}")


def _dying_with(parent: int) -> Callable[[], None]:
    """What the child does before iperf3 takes over: ask to be killed when the agent dies.

    It must be KILL, as a stopped or deaf child survives TERM. An agent that died between the
    fork and the request is seen by the changed parent. What the kernel waits for is the death of
    the thread that forked: that is the main one for all greenlets, and gevent starts children in
    no other.
    """
    # Looked up here: after the fork, another thread may have left the loader's lock behind.
    prctl = _LIBC.prctl

    def ask() -> None:
        if prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != parent:
            os._exit(127)

    return ask
