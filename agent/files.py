"""Whether files can be written, writing files that are either whole or absent, and checksums.

Everything here blocks, an fsync for as long as the disk takes. Where the hub must keep turning,
`StateDirectory.run` calls it in a native thread.
"""

import errno
import os
import shutil
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from mmap import mmap
from pathlib import Path

# What a file system without hard links answers, or the last link that a file may have.
_NO_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class Whose(Enum):
    """Who has to do something about an error of the disk, by the error's number."""

    # Nobody: the host is short of something now, so the agent tries again.
    HOST = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR}
    # The agent's owner: the path or its rights are wrong, or the disk is full or read-only.
    OWNER = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG}
    DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
    # Nobody: what concerns the file fails, and the agent goes on. Any other number.
    FILE = set[int]()


def whose(error: BaseException | None) -> Whose:
    """Whose an OSError is, or an error that was raised from one: decided here for all code."""
    cause = error if isinstance(error, OSError) or error is None else error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    return next((each for each in Whose if number in each.value), Whose.FILE)


def is_writable_file(path: Path) -> bool:
    """Whether the file can be written, or made if there is none."""
    try:
        # Opening a link that leads to no file yet makes the file that it leads to.
        target = Path(os.path.realpath(path))
    except FileNotFoundError:  # the working directory was removed
        return False
    if os.path.exists(target):
        return not target.is_dir() and os.access(target, os.W_OK)
    return _takes_files(target.parent)


def is_writable_directory(path: Path) -> bool:
    """Whether files can be made in the directory, or it can be made with its parents."""
    return _takes_files(nearest(path))


def is_read_only(path: Path) -> bool:
    """Whether the file system that has, or would have, the directory is read-only."""
    with suppress(OSError):
        return bool(os.statvfs(nearest(path)).f_flag & os.ST_RDONLY)
    return False


def nearest(path: Path) -> Path:
    """The path itself, or the nearest one above it that exists."""
    # Path.exists() raises PermissionError when a directory above may not be searched.
    # Not even the working directory may be.
    return next(filter(os.path.exists, (path, *path.parents)), Path())


def _takes_files(path: Path) -> bool:
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Give the name of a file that is to replace another one, once it is whole on the disk."""
    fresh = path.with_name(path.name + ".new")
    try:
        yield fresh
        os.replace(fresh, path)
    except OSError:
        # On a full disk it would take the last free space.
        discard(fresh)
        raise


def write_whole(path: Path, parts: Iterable[bytes | memoryview | mmap]) -> None:
    """Write a file so that a crash leaves either the old or the new one; raises OSError."""
    with _replaced(path) as fresh, open(fresh, "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


def link_or_copy(source: str | Path, target: Path) -> None:
    """Give a file a second name; a copy where the file system has no hard links. Raises OSError.

    A crash leaves the copy either whole or absent.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        with _replaced(target) as fresh:
            shutil.copyfile(source, fresh)
            sync(fresh)


def read_whole(path: Path) -> bytes:
    """The content of a file; raises OSError, also for what is no regular file."""
    _check_regular(path)
    return path.read_bytes()


def read_if_there(path: Path) -> bytes | None:
    """The same, but None for a file that is not there."""
    try:
        return read_whole(path)
    except FileNotFoundError:
        return None


def _check_regular(path: Path) -> None:
    """Raise OSError for what is no regular file: a pipe would wait for its writer."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))


def sync(path: Path) -> None:
    """Return when the file or directory is on the disk; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(*paths: Path) -> None:
    """Remove files that are there; one that cannot be removed goes at the agent's next start."""
    for path in paths:
        with suppress(OSError):
            path.unlink()


def checksum(path: Path, start: int = 0, end: int | None = None) -> int:
    """The CRC-32 of a file, or of its bytes from `start` up to `end`; raises OSError."""
    found = 0
    _check_regular(path)
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size if end is None else end
        file.seek(start)
        while start < end:
            chunk = file.read(min(1024**2, end - start))
            if not chunk:
                raise OSError(errno.EIO, "it was cut short", str(path))
            found, start = zlib.crc32(chunk, found), start + len(chunk)
    return found


def frame(payload: bytes) -> bytes:
    """One line: the CRC-32 in eight hexadecimal digits, a blank, the payload without line break."""
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


def unframe(line: bytes) -> bytes:
    """The payload of a line that `frame` made; raises ValueError for any other."""
    found, _, payload = line.removesuffix(b"\n").partition(b" ")
    if found != b"%08x" % zlib.crc32(payload):
        raise ValueError("the checksum does not fit")
    return payload
