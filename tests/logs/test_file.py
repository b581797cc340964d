"""LOG_FILE: how it survives logrotate and disks that cannot be written."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.faulty_manager import FaultyManager, well
from tests.support.harness import AgentProcess, until
from tests.support.lone_agent import lone_agent
from tests.support.sockets import MakeManager

pytestmark = pytest.mark.process

CHATTY = ("--debug",)


@pytest.fixture(name="manager")
def fixture_manager(faulty: MakeManager) -> FaultyManager:
    return faulty(well)


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of the file; fails if one is not complete."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def has_lines(path: Path) -> bool:
    return path.exists() and path.read_bytes().count(b"\n") >= 3


def assert_all_there(agent: AgentProcess, *files: Path) -> None:
    """Stop the agent and check that the files together have the lines of its stdout."""
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert [line for file in files for line in lines(file)] == agent.lines


def test_a_new_log_file_is_opened_after_a_rename(manager: FaultyManager, tmp_path: Path) -> None:
    log_file = tmp_path / "agent.log"
    with lone_agent(manager.url, tmp_path, *CHATTY, LOG_FILE=str(log_file)) as agent:
        until(lambda: has_lines(log_file))
        for number in (1, 2):
            log_file.rename(f"{log_file}.{number}")
            until(lambda: has_lines(log_file))
        assert os.stat(log_file).st_mode & 0o137 == 0
        assert_all_there(agent, Path(f"{log_file}.1"), Path(f"{log_file}.2"), log_file)


def test_a_log_file_that_was_replaced_is_no_longer_written(
    manager: FaultyManager, tmp_path: Path
) -> None:
    """logrotate's `create` does this."""
    log_file, before = tmp_path / "agent.log", tmp_path / "before"
    with lone_agent(manager.url, tmp_path, *CHATTY, LOG_FILE=str(log_file)) as agent:
        until(lambda: has_lines(log_file))
        log_file.rename(before)
        log_file.touch(mode=0o600)
        until(lambda: has_lines(log_file))
        assert_all_there(agent, before, log_file)


def test_a_log_file_that_was_emptied_is_written_from_its_beginning(
    manager: FaultyManager, tmp_path: Path
) -> None:
    """logrotate's `copytruncate` does this."""
    log_file = tmp_path / "agent.log"
    with lone_agent(manager.url, tmp_path, *CHATTY, LOG_FILE=str(log_file)) as agent:
        until(lambda: has_lines(log_file))
        os.truncate(log_file, 0)
        until(lambda: has_lines(log_file))
        assert b"\0" not in log_file.read_bytes()
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
        left = lines(log_file)
        assert left == agent.lines[-len(left) :]


def test_a_log_file_whose_directory_was_removed_and_restored_is_written_again(
    manager: FaultyManager, tmp_path: Path
) -> None:
    log_file = tmp_path / "logs" / "agent.log"
    log_file.parent.mkdir()
    with lone_agent(manager.url, tmp_path, *CHATTY, LOG_FILE=str(log_file)) as agent:
        until(lambda: has_lines(log_file))
        shutil.rmtree(log_file.parent)
        seen = len(manager.requests)
        manager.wait_for(lambda: len(manager.requests) > seen + 20)
        log_file.parent.mkdir()
        until(lambda: has_lines(log_file))
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
        left = lines(log_file)
        assert left == agent.lines[-len(left) :]


# Writes lines of 1000 bytes to a file limited to 2500, then a line without the limit.
FULL = """
import resource, signal, sys
from pathlib import Path
from agent.logs.writer import LogFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = LogFile(Path(sys.argv[1]))
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (2500, most))
for _ in range(5):
    file.write(b"x" * 999 + b"\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
file.write(b"whole\\n")
"""


def test_a_line_cut_short_by_a_full_disk_does_not_merge_with_the_next(tmp_path: Path) -> None:
    log_file = tmp_path / "agent.log"
    subprocess.run([sys.executable, "-c", FULL, log_file], check=True, timeout=20)
    written = log_file.read_text().splitlines()
    assert [len(line) for line in written] == [999, 999, 500, 5]
    assert written[-1] == "whole"


def test_a_pipe_that_nobody_reads_is_no_log_file(manager: FaultyManager, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    with lone_agent(manager.url, tmp_path, LOG_FILE=str(tmp_path / "log")) as agent:
        assert agent.exit_code() == 78
        assert "LOG_FILE" in str(agent.lines)


def test_a_pipe_that_somebody_reads_is_a_log_file(manager: FaultyManager, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    with lone_agent(manager.url, tmp_path, LOG_FILE=str(tmp_path / "log")):
        written = b""

        def arrived() -> bool:
            nonlocal written
            with suppress(BlockingIOError):
                written += os.read(reader, 2**16)
            return b"registered" in written

        until(arrived)
    os.close(reader)
