"""A real ext4 on a loop device, some sectors of which cannot be read any more.

The device's image loses its last block, and the kernel answers EIO for that: read() raises it, and
a touched mapping ends the process by SIGBUS. A file gets there when one of its blocks and that last
one change places.
"""

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from subprocess import CalledProcessError

import pytest
from gevent import subprocess

BLOCK = 4096
SIZE = 16 * 1024**2
# linux/fs.h: the number of a file's block on the device. fs/ext4/ext4.h: the blocks of two files
# change places.
_FIBMAP = 1
_MOVE_EXTENT = 0xC028660F
# linux/falloc.h: FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE.
_PUNCH_HOLE = 1 | 2


class BadDisk:
    """The disk, mounted on `path`. `close` takes it away, whatever a test has left there."""

    def __init__(self, path: Path) -> None:
        """Make and mount it; skips the test where that is not possible."""
        self.path = path
        self._image = path.with_suffix(".image")
        path.mkdir()
        with open(self._image, "wb") as image:
            image.truncate(SIZE)
        try:
            options = ["-q", "-F", "-m", "0", "-b", str(BLOCK), "-O", "^has_journal"]
            _run("mkfs.ext4", *options, str(self._image))
            device = _run("losetup", "--find", "--show", str(self._image)).strip()
            try:
                _run("mount", device, str(path))
            finally:
                # Once it is mounted, it is in use until it is unmounted.
                _run("losetup", "--detach", device)
            self._last = self._reserve()
        except (OSError, CalledProcessError) as error:
            self.close()
            words = f"a disk with bad sectors needs root, loop devices and ext4: {error}"
            if os.environ.get("CI"):
                pytest.fail(f"{words}: CI must not skip")
            pytest.skip(words)

    def spoil(self, path: Path, at: int = -1) -> None:
        """From now on the block with byte `at` cannot be read, nor a part of it written; once."""
        with open(path, "rb") as file, open(self._reserved, "rb+") as reserved:
            os.fsync(file.fileno())
            number = range(os.fstat(file.fileno()).st_size)[at] // BLOCK
            places = (number, self._last)
            with open(path, "rb+") as moved:
                moving = struct.pack("IIQQQQ", 0, reserved.fileno(), *places, 1, 0)
                fcntl.ioctl(moved, _MOVE_EXTENT, moving)
            os.fsync(file.fileno())
            os.sync()
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.truncate(self._image, _place(file.fileno(), number) * BLOCK)
            file.seek(number * BLOCK)
            with pytest.raises(OSError, match="Input/output error"):
                file.read(1)

    def close(self) -> None:
        """Unmount it, in use or not, which frees its device."""
        if os.path.ismount(self.path):
            _run("umount", "--lazy", str(self.path))
        self._image.unlink()

    @property
    def _reserved(self) -> Path:
        return self.path / "reserved"

    def _reserve(self) -> int:
        """Fill the disk and free all but its last block; returns that one's number in the file."""
        with open(self._reserved, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"r" * BLOCK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            os.fsync(file.fileno())
            count = os.fstat(file.fileno()).st_size // BLOCK
            last = max(range(count), key=lambda number: _place(file.fileno(), number))
            for begin, end in ((0, last), (last + 1, count)):
                span = ctypes.c_int64(begin * BLOCK), ctypes.c_int64((end - begin) * BLOCK)
                if begin < end and ctypes.CDLL(None).fallocate(file.fileno(), _PUNCH_HOLE, *span):
                    raise OSError("no hole could be made")
            return last


def _place(descriptor: int, number: int) -> int:
    """Where on the device a file's block is."""
    found = fcntl.ioctl(descriptor, _FIBMAP, struct.pack("i", number))
    (place,) = struct.unpack("i", found)
    return int(place)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return str(done.stdout)
