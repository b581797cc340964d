"""Lines with a checksum, of which the files in the state directory consist."""

import zlib

from agent.errors import RecordDamaged


def frame(payload: bytes) -> bytes:
    """One line: the CRC-32 in eight hexadecimal digits, a blank, the payload without line break."""
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


def unframe(line: bytes) -> bytes:
    """The payload of a line that `frame` made; raises RecordDamaged for any other."""
    checksum, _, payload = line.removesuffix(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(payload):
        raise RecordDamaged("the checksum does not fit")
    return payload
