"""Agents on hosts that tell little of their sockets and processes, made for real.

Each of these is the program of an agent. All but those of `stand_in` need root.
"""

import sys
from collections.abc import Sequence

from tests.support.harness import AGENT

# A filter of seccomp(2): socket() with the protocol NETLINK_SOCK_DIAG is refused as by a kernel
# that was built without it, for the agent and its children.
_REFUSING = """
import ctypes, os, platform, struct, sys
LOAD, JUMP_IF, RETURN = 0x20, 0x15, 0x06
call = {"x86_64": 41, "aarch64": 198}[platform.machine()]
refused, allowed = 0x00050000 | 93, 0x7fff0000
lines = [(LOAD, 0, 0, 0), (JUMP_IF, 0, 5, call), (LOAD, 0, 0, 16), (JUMP_IF, 0, 3, 16)]
lines += [(LOAD, 0, 0, 32), (JUMP_IF, 0, 1, 4), (RETURN, 0, 0, refused), (RETURN, 0, 0, allowed)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
program = struct.pack("@HP", len(lines), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2
if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(SECCOMP, FILTER, program, 0, 0):
    sys.exit("no seccomp here")
os.execv(sys.argv[1], sys.argv[1:])
"""
# An ordinary user that may read the interpreter, wherever that is.
_CAPABILITY = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *_CAPABILITY)
# Nor may it write what coverage has measured.
_UNMEASURED = ("env", "-u", "COVERAGE_PROCESS_CONFIG", "-u", "COVERAGE_PROCESS_START")


def without_sock_diag() -> Sequence[str]:
    """On a kernel without sock_diag."""
    return (sys.executable, "-c", _REFUSING, *AGENT)


def with_proc(*mount: str, nobody: bool = False) -> Sequence[str]:
    """With a /proc of its own that is mounted in this way; as an ordinary user if `nobody`."""
    command = f"mount {' '.join(mount)} none /proc && exec \"$@\""
    user = (*_NOBODY, *_UNMEASURED) if nobody else ()
    return ("unshare", "--mount", "sh", "-c", command, "sh", *user, *AGENT)


def stand_in(*lines: str) -> Sequence[str]:
    """With these lines of Python between the import of the agent and its start."""
    return (sys.executable, "-c", "\n".join(["from agent.__main__ import main", *lines, "main()"]))
