"""Lines with checksums, and files that are either whole or absent."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.files import checksum, frame, unframe, write_whole

LINE = frame(b'{"task":7,"key":"abc"}')


def is_damaged(line: bytes) -> bool:
    """Whether it is not accepted as a line."""
    try:
        unframe(line)
    except ValueError:
        return True
    return False


@given(st.binary().map(lambda payload: payload.translate(None, b"\r\n")))
def test_a_line_holds_any_payload_without_line_breaks(payload: bytes) -> None:
    line = frame(payload)
    assert line.splitlines(keepends=True) == [line]
    assert unframe(line) == payload
    assert unframe(line[:-1]) == payload, "the end of the line is not of the payload"


def test_a_line_with_any_byte_changed_is_damaged() -> None:
    for place in range(len(LINE)):
        for byte in set(range(256)) - {LINE[place]}:
            changed = LINE[:place] + bytes([byte]) + LINE[place + 1 :]
            assert is_damaged(changed), changed


def test_a_torn_line_is_damaged_wherever_it_was_torn() -> None:
    for length in range(1, len(LINE) - 1):
        assert is_damaged(LINE[:length]), length
        assert is_damaged(LINE[:length] + LINE), "a whole one behind it does not mend it"


@given(st.binary())
def test_only_framed_bytes_are_a_line(stray: bytes) -> None:
    assert is_damaged(stray) or frame(unframe(stray)) == stray.removesuffix(b"\n") + b"\n"


def test_a_file_that_cannot_be_replaced_stays_as_it_was_and_leaves_no_other(tmp_path: Path) -> None:
    in_the_way = tmp_path / "place"
    (in_the_way / "something").mkdir(parents=True)
    with pytest.raises(OSError):
        write_whole(in_the_way, [b"data"])
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"longer than the next", b"short", b""):
        write_whole(path, [content])
        assert path.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_checksum_is_that_of_all_the_content(tmp_path: Path) -> None:
    path = tmp_path / "large"
    content = b"0123456789abcdef" * 200_000
    for different in (content, content[:-1] + b"!", b"!" + content[1:], b""):
        path.write_bytes(different)
        assert f"{checksum(path):08x}".encode() == frame(different)[:8]
