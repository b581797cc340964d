"""The files that children write: mapped, measured, and given back to the disk."""

import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# linux/falloc.h: FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE.
_PUNCH_HOLE = 1 | 2
_LIBC = ctypes.CDLL(None)


@contextmanager
def map_file(path: Path, start: int = 0) -> Iterator[memoryview]:
    """A file's content from byte `start` on, for as long as the block lasts; raises OSError.

    It is mapped and not read, so that a large file takes no memory.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size <= start:
            yield memoryview(b"")
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            with memoryview(content) as whole, whole[start:] as view:
                yield view


def free_start(path: Path, end: int) -> None:
    """Give the disk back what a file holds before byte `end`; its size stays. Raises OSError.

    The file cannot be cut short, as its child may write at any moment. Where a file system has
    no holes, the space stays taken until the file is removed.
    """
    if sys.platform != "linux":
        return
    with open(path, "rb+") as file:
        _LIBC.fallocate(file.fileno(), _PUNCH_HOLE, ctypes.c_int64(0), ctypes.c_int64(end))


def find_data(path: Path) -> int:
    """The first byte behind the hole that `free_start` made; raises OSError.

    On a tmpfs even reading a hole takes space, and a full one answers with SIGBUS.
    """
    with open(path, "rb") as file:
        try:
            return os.lseek(file.fileno(), 0, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return os.fstat(file.fileno()).st_size


def size_of(path: Path) -> int:
    """A file's size in bytes; 0 for one that somebody has removed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
