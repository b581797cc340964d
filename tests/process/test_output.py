"""The files of children are read, and what cannot be read is an error and not the agent's end."""

import errno
import mmap
import os
from pathlib import Path

import pytest

from agent.process import output
from agent.process.output import AT_ONCE, find_data, free_start, size_of, view_of
from tests.support.bad_sectors import BLOCK, BadDisk

LARGE = AT_ONCE + 3 * BLOCK


def written(path: Path, size: int) -> bytes:
    content = os.urandom(size)
    path.write_bytes(content)
    return content


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("size", [0, 100, AT_ONCE, LARGE])
@pytest.mark.parametrize("start", [0, 5, 90, BLOCK, AT_ONCE - 1, LARGE])
def test_all_that_follows_the_start_can_be_seen(tmp_path: Path, size: int, start: int) -> None:
    content = written(tmp_path / "file", size)
    assert view_of(tmp_path / "file", start) == content[start:]


def test_only_a_large_part_is_mapped_and_for_as_long_as_it_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "file"
    written(path, LARGE)
    small = view_of(path, LARGE - AT_ONCE)
    assert not mapped(path)
    part = view_of(path)[7:9]
    assert mapped(path) and len(part) == 2
    del part
    assert not mapped(path) and len(small) == AT_ONCE


@pytest.mark.parametrize("size", [100, AT_ONCE, LARGE])
@pytest.mark.parametrize("at", [0, -1])
def test_a_sector_that_cannot_be_read_is_an_error_that_names_the_file(
    bad_disk: BadDisk, size: int, at: int
) -> None:
    path = bad_disk.path / "file"
    written(path, size)
    bad_disk.spoil(path, at)
    with pytest.raises(OSError) as raised:
        view_of(path)
    assert raised.value.errno == errno.EIO
    assert raised.value.filename == str(path)


def test_what_lies_behind_a_bad_sector_can_be_seen(bad_disk: BadDisk) -> None:
    content = written(bad_disk.path / "file", 3 * BLOCK)
    bad_disk.spoil(bad_disk.path / "file", 0)
    assert view_of(bad_disk.path / "file", 2 * BLOCK) == content[2 * BLOCK :]


def test_a_file_that_is_cut_short_before_it_is_mapped_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever empties it does so while it is read."""
    path = tmp_path / "file"
    written(path, LARGE)

    def cut_and_map(*args: int, **kwargs: int) -> mmap.mmap:
        os.truncate(path, 0)
        return mmap.mmap(*args, **kwargs)

    monkeypatch.setattr(output, "mmap", cut_and_map)
    with pytest.raises(OSError, match="cut short"):
        view_of(path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ELOOP])
def test_a_file_that_cannot_be_looked_at_has_no_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "stat", fail)
    assert size_of(tmp_path) == 0


def test_a_file_whose_links_go_round_is_an_error_for_readers_alone(tmp_path: Path) -> None:
    path = tmp_path / "loop"
    path.symlink_to(path)
    assert size_of(path) == 0
    free_start(path, 10)
    for read in (view_of, find_data):
        with pytest.raises(OSError, match="symbolic links"):
            read(path)
