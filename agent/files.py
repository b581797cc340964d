"""Files as such: whether one can be written, and files that are whole or absent.

Everything here blocks, an fsync for as long as the disk takes: where the hub must turn,
`StateDirectory.run` calls it in a native thread.
"""

import os
import zlib
from contextlib import suppress
from pathlib import Path


def is_writable_file(path: Path) -> bool:
    """Whether the file can be written, or made where there is none."""
    # Through a link that leads to no file yet, one is made where it leads.
    meant = Path(os.path.realpath(path))
    if os.path.exists(meant):
        return not meant.is_dir() and os.access(meant, os.W_OK)
    return _takes_files(meant.parent)


def is_writable_directory(path: Path) -> bool:
    """Whether the directory takes files, or can be made with those above it."""
    return _takes_files(nearest(path))


def is_read_only(path: Path) -> bool:
    """Whether the file system of the directory, or of what is nearest to it, is read-only."""
    return bool(os.statvfs(nearest(path)).f_flag & os.ST_RDONLY)


def nearest(path: Path) -> Path:
    """The path itself, or the nearest one above it that exists."""
    # Path.exists() would raise where the way to it may not be walked.
    while not os.path.exists(path):
        path = path.parent
    return path


def _takes_files(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def write_whole(path: Path, data: bytes) -> None:
    """Put a file in place so that a crash leaves the old one or the new one; raises OSError."""
    fresh = path.with_name(path.name + ".new")
    try:
        with open(fresh, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        # On a full disk it would hold the last of the room.
        with suppress(OSError):
            fresh.unlink()
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Return when the file or directory is on the disk; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a file, if it is there and can be; what cannot goes with the agent's next start."""
    with suppress(OSError):
        path.unlink()


def checksum(path: Path) -> int:
    """The CRC-32 of a file's content; raises OSError."""
    found = 0
    with open(path, "rb") as file:
        while chunk := file.read(1024**2):
            found = zlib.crc32(chunk, found)
    return found
