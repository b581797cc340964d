"""Whether this user can write somewhere, found out without making anything there."""

import os
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
