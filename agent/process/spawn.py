"""Starting a program: in a session of its own, without the agent's key, and to die with the agent.

Only this module uses gevent.subprocess. `Popen()` yields after the fork, and a greenlet that is
killed at that moment loses the child. So greenlets that start children are never killed: an event
tells them to stop.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gevent
from gevent import subprocess

from agent.errors import ErrorClass, StateUnusable, TaskError

_PR_SET_PDEATHSIG = 1
# Bytes; the help of iperf3 has a few thousand.
_MAX_CAPTURED = 1024**2
# Looked up before any fork: another thread may hold the loader's lock during it.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
# All that a child gets of the agent's environment, which also holds the key.
_VARIABLES = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
NO_SECRETS = MappingProxyType(dict[str, str]())
_TO_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


def spawn(
    argv: list[str], *outputs: Path, secrets: Mapping[str, str] = NO_SECRETS, **streams: Any
) -> Any:
    """Start a program; returns its Popen, raises OSError, and TaskError for `[...]` off Linux.

    It opens the `outputs` for its stdout and stderr itself, so that a disk that stands still holds
    up nobody else; `streams` are as for Popen. It gets a secret named `[...]` as a file, whose path
    takes the place of that word in `argv`, and any other as a variable of its environment. The file
    is in memory and has no name: it goes with the program, however that and the agent end.
    """
    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    files: dict[str, int] = {}
    try:
        for name, text in secrets.items():
            if not name.startswith("["):
                variables[name] = text
            elif sys.platform != "linux":
                raise TaskError(ErrorClass.UNSUPPORTED, "an agent takes logins on Linux only")
            else:
                files[name] = os.memfd_create("secret")
                os.fchmod(files[name], 0o600)
                os.write(files[name], text.encode())
        return subprocess.Popen(
            [f"/proc/self/fd/{files[word]}" if word in files else word for word in argv],
            stdin=subprocess.DEVNULL,  # type: ignore[attr-defined]
            env=variables,
            pass_fds=tuple(files.values()),
            start_new_session=True,
            preexec_fn=partial(_begin, os.getpid(), outputs),
            **streams,
        )
    except StateUnusable as error:
        raise OSError(*error.args) from None
    finally:
        for file in files.values():
            os.close(file)


def spawn_error(path: str, error: OSError) -> TaskError:
    """Why the program at `path` could not be started, and what to do about it."""
    if isinstance(error, FileNotFoundError | PermissionError) and error.filename == path:
        words = f"{path} cannot be run ({error.strerror}): install iperf3, or set IPERF3_PATH to it"
        return TaskError(ErrorClass.IPERF3_MISSING, words)
    return TaskError(ErrorClass.HOST_ERROR, f"{path} could not be started: {error}")


def capture_output(argv: list[str], timeout: float) -> str:
    """What a short command prints; raises TaskError when it cannot be run, or does not end."""
    try:
        command = spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise spawn_error(argv[0], error) from error
    output: bytes = b""
    with command.stdout, gevent.Timeout(timeout, False):
        output = command.stdout.read(_MAX_CAPTURED)
        if len(output) < _MAX_CAPTURED:
            command.wait()
            return output.decode(errors="replace")
    # Its children are killed too, as they may be what goes on.
    signal_group(command.pid, signal.SIGKILL)
    command.wait()
    endless = len(output) == _MAX_CAPTURED
    words = "prints without an end" if endless else f"did not answer within {timeout:g} s"
    raise TaskError(ErrorClass.OTHER, f"{argv[0]} {words}")


def signal_group(leader: int, number: int) -> bool:
    """Signal a program and what it has started; False if nobody is left. Zombies count."""
    with suppress(OSError):
        os.killpg(leader, number)
        return True
    return False


def _begin(parent: int, outputs: tuple[Path, ...]) -> None:
    """What the child does before it becomes iperf3: ask the kernel to kill it with the agent.

    The signal is KILL, as a stopped child, or one that ignores TERM, survives TERM. The changed
    parent shows that the agent died between the fork and the request. The kernel watches the
    thread that forked: gevent forks in the main thread only.
    """
    if _PRCTL and (_PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != parent):
        os._exit(127)
    # 1 byte: no dump, with a login in it, for a file or a program. The 0 of the units stays.
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    for number, path in enumerate(outputs, 1):
        try:
            os.dup2(os.open(path, _TO_WRITE, 0o666), number)
        except OSError as error:
            # Popen would give an OSError the name of the program.
            raise StateUnusable(error.errno, error.strerror, str(path)) from error
