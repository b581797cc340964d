"""Lines with a checksum, and files that are whole or not there at all.

Everything here blocks, a fsync for as long as the disk likes: `StateDirectory.run` calls it in a
native thread.
"""

import os
import zlib
from contextlib import suppress
from pathlib import Path

from agent.errors import RecordDamaged


def frame(payload: bytes) -> bytes:
    """One line: the CRC-32 of the payload in eight hexadecimal digits, a blank, the payload.

    The payload must have no line break, as the JSON that we write has none.
    """
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


def unframe(line: bytes) -> bytes:
    """The payload of a line that `frame` made; raises RecordDamaged for any other."""
    checksum, _, payload = line.removesuffix(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(payload):
        raise RecordDamaged("the checksum does not fit")
    return payload


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
