"""The files that children write: read, measured, and given back to the disk.

Everything here blocks but `in_thread`: call it by that where a file may be large.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path

from agent.native_threads import NativeThreads

# Up to so many bytes are read; more are mapped.
AT_ONCE = 4 * 1024**2
_CHUNK = 1024**2
# linux/falloc.h: FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE.
_PUNCH_HOLE = 1 | 2
_LIBC = ctypes.CDLL(None)

# Not the threads of the state directory: a test's deadline and an order to stop it do not wait for
# an fsync.
in_thread = NativeThreads(4).call


def view_of(path: str | Path, start: int = 0) -> memoryview:
    """A file's content from byte `start` on; raises OSError, with the file's name.

    A large one is mapped, so that it takes no memory, for as long as a part of the view is in
    use. It is read before that: a sector that cannot be read is an error of read(), but touched
    in a mapping it would end the process by SIGBUS.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(start)
            if size - start <= AT_ONCE:
                return memoryview(file.read(AT_ONCE))
            while file.read(_CHUNK):
                pass
            return memoryview(mmap(file.fileno(), size, access=ACCESS_READ))[start:]
    except OSError as error:
        error.filename = str(path)
        raise
    except ValueError as error:
        raise OSError(errno.EIO, "it was cut short while it was read", str(path)) from error


def read_part(path: Path, start: int, most: int) -> bytes:
    """At most so many bytes from byte `start` on; raises OSError."""
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(most)


def overwrite(path: Path, start: int, pieces: Iterable[tuple[int, bytes]]) -> bool:
    """Put pieces at their places, counted from byte `start`; False for none. Raises OSError."""
    number = 0
    with open(path, "rb+") as file:
        for number, (place, piece) in enumerate(pieces, 1):
            os.pwrite(file.fileno(), piece, start + place)
    return number > 0


def free_start(path: Path, end: int) -> None:
    """Give the disk back what a file holds before byte `end`; its size stays.

    The file cannot be cut short, as its child may write at any moment. Where that is not
    possible, the space stays taken until the file is removed.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError), open(path, "rb+") as file:
        _LIBC.fallocate(file.fileno(), _PUNCH_HOLE, ctypes.c_int64(0), ctypes.c_int64(end))


def find_data(path: Path) -> int:
    """The first byte behind the hole that `free_start` made; raises OSError.

    On a tmpfs even touching a hole in a mapping takes space, and a full one answers with SIGBUS.
    """
    with open(path, "rb") as file:
        try:
            return os.lseek(file.fileno(), 0, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return os.fstat(file.fileno()).st_size


def size_of(path: Path) -> int:
    """A file's size in bytes; 0 for one that cannot be looked at, or that somebody has removed."""
    with suppress(OSError):
        return path.stat().st_size
    return 0
