"""A second name for a file, where the file system has hard links and where it has none."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.files import link_or_copy

CONTENT = bytes(range(256)) * 20_000


def refuse(code: int) -> Callable[..., None]:
    """What a file system without hard links does."""

    def link(source: object, target: object) -> None:
        raise OSError(code, os.strerror(code), str(source), None, str(target))

    return link


def made(path: Path) -> Path:
    path.write_bytes(CONTENT)
    return path


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_a_second_name_is_no_copy(tmp_path: Path) -> None:
    link_or_copy(made(tmp_path / "a"), tmp_path / "b")
    assert os.path.samefile(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("code", ["EPERM", "ENOTSUP", "EOPNOTSUPP", "EMLINK", "ENOSYS", "EXDEV"])
def test_without_hard_links_it_is_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(os, "link", refuse(getattr(errno, code)))
    link_or_copy(str(made(tmp_path / "a")), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == CONTENT
    assert names(tmp_path) == ["a", "b"]


def test_another_error_of_the_link_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "a")
    made(tmp_path / "b")
    with pytest.raises(FileExistsError):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(os, "link", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        link_or_copy(tmp_path / "a", tmp_path / "c")
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_copy_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="Input/output"):
        link_or_copy(made(tmp_path / "a"), tmp_path / "b")
    assert names(tmp_path) == ["a"]
