"""The faulty disk of other tests: each fault reaches Python, and goes again."""

import errno
import select
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gevent import subprocess

from agent.process.spawn import capture_output
from tests.support.faulty_disk import CALLS, POSSIBLE, FaultyDisk
from tests.support.harness import environment
from tests.support.needs import need

need(POSSIBLE, "a disk that fails on demand needs Linux and gcc")

# Says of each line with which errno it failed.
TRIES = """
import os, sys
from pathlib import Path
file, directory, at = Path("file").resolve(), Path("directory").resolve(), os.open(".", os.O_RDONLY)
for line in sys.stdin:
    try:
        exec(line)
        print(0, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""
# The ways in which Python makes each call, each possible once.
WAYS = {
    "access": ["if not os.access(file, os.R_OK): raise OSError(5, '')"],
    "close": ["file.read_bytes()", "os.close(os.open(file, os.O_RDONLY))"],
    "fdatasync": ["os.fdatasync(os.open(file, os.O_RDONLY))"],
    "fsync": ["os.fsync(os.open(file, os.O_RDONLY))", "os.fsync(os.open(directory, os.O_RDONLY))"],
    "link": [
        "os.link(file, '1')",
        "os.link('file', '2', src_dir_fd=at)",
        "os.link('other', 'new-file')",
    ],
    "mkdir": ["os.mkdir('new-directory')", "os.mkdir('newer-directory', dir_fd=at)"],
    "open": [
        "open(file)",
        "open(file, 'ab')",
        "os.open('newer-file', os.O_RDWR | os.O_CREAT)",
        "os.open('file', os.O_RDONLY, dir_fd=at)",
        "file.read_bytes()",
    ],
    "opendir": [
        "os.listdir(directory)",
        "list(os.scandir(directory))",
        "list(directory.glob('*'))",
    ],
    "read": [
        "file.read_bytes()",
        "open(file, 'rb', buffering=0).read(1)",
        "os.read(os.open(file, os.O_RDONLY), 1)",
        "os.pread(os.open(file, os.O_RDONLY), 1, 0)",
    ],
    "readdir": ["os.listdir(directory)", "list(directory.glob('*'))"],
    "rename": ["os.replace('other', 'new-file')", "os.rename(file, 'another')"],
    "stat": [
        "os.stat(file)",
        "file.exists()",
        "os.lstat(file)",
        "os.stat('file', dir_fd=at)",
        "os.fstat(os.open(file, os.O_RDONLY))",
    ],
    "unlink": ["file.unlink()", "os.unlink('another-file', dir_fd=at)"],
    "write": ["file.write_bytes(b'x')", "os.write(os.open(file, os.O_WRONLY), b'x')"],
}


class Trier:
    """A process on a faulty disk that tries statements."""

    def __init__(self, directory: Path) -> None:
        for name in ("file", "other", "another-file"):
            (directory / name).write_text("content")
        (directory / "directory").mkdir()
        self.disk = FaultyDisk(directory / "faults")
        self._process = subprocess.Popen(
            [sys.executable, "-c", TRIES],
            cwd=directory,
            env=environment(**self.disk.variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._process.stdin and self._process.stdout
        self._statements, self._ends = self._process.stdin, self._process.stdout

    def begin(self, statement: str) -> None:
        """Let it try the statement."""
        self._statements.write(f"{statement}\n".encode())

    def has_ended(self) -> bool:
        """Whether the statement has, within a moment."""
        return bool(select.select([self._ends.fileno()], [], [], 0.1)[0])

    def errno(self) -> int:
        """With which errno it ended; 0 if all went well."""
        return int(self._ends.readline())

    def close(self) -> None:
        """End the process."""
        self._statements.close()
        self._process.wait()
        self._ends.close()


@pytest.fixture(name="trier")
def fixture_trier(tmp_path: Path) -> Iterator[Trier]:
    """A process that tries statements, until the test's end."""
    trier = Trier(tmp_path)
    # Its own start looks at files as well.
    trier.begin("pass")
    assert trier.errno() == 0
    yield trier
    trier.close()


def test_there_is_a_way_for_each_call() -> None:
    assert WAYS.keys() == CALLS


@pytest.mark.parametrize("call", WAYS)
def test_a_call_fails_as_the_rule_says_until_it_is_lifted(trier: Trier, call: str) -> None:
    for statement in WAYS[call]:
        trier.disk.fail(call, "*file", errno.EIO)
        trier.disk.fail(call, "*directory", errno.EIO)
        trier.begin(statement)
        assert trier.errno() == errno.EIO, statement
        trier.disk.lift()
        trier.begin(statement)
        assert trier.errno() == 0, statement
    assert {met for met, _ in trier.disk.met()} == {call}


def test_a_call_is_held_until_it_is_lifted(trier: Trier) -> None:
    trier.disk.hold("fsync", "*/file")
    trier.begin("os.fsync(os.open(file, os.O_RDONLY))")
    trier.disk.wait_until_met("fsync", "file")
    assert not trier.has_ended()
    trier.disk.lift()
    assert trier.errno() == 0


def test_other_paths_and_other_calls_are_not_affected(trier: Trier) -> None:
    trier.disk.fail("open stat", "*/file", errno.EIO)
    trier.begin("os.replace('other', 'new'); open('new').read(); os.stat('new'); file.unlink()")
    assert trier.errno() == 0
    assert trier.disk.met() == set()


def test_a_child_of_the_agent_has_a_sound_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in FaultyDisk(tmp_path / "faults").variables.items():
        monkeypatch.setenv(name, value)
    assert "LD_PRELOAD" not in capture_output(["env"], timeout=10)
