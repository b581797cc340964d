"""Each line to the journal starts with its priority, and no other line does."""

import json
import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gevent import subprocess

from tests.support.harness import environment

pytestmark = pytest.mark.process

# Logs a line at each level, and one with a traceback.
SPEAKER = """
import sys
from pathlib import Path
import structlog
from agent.logs.setup import configure_logging
writer = configure_logging("debug", sys.argv[1], "a1", str, Path(sys.argv[2]))
log = structlog.get_logger()
for level in ("debug", "info", "warning", "error", "critical"):
    getattr(log, level)(level)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("bug")
writer.close()
"""
MESSAGES = ["debug", "info", "warning", "error", "critical", "bug"]

if sys.platform != "linux":
    pytest.skip("the journal is Linux's", allow_module_level=True)


def spoken(style: str, log_file: Path, stream: Callable[[os.stat_result], str]) -> list[str]:
    """The lines that such a process writes to a socket, named by `stream` as the journal's."""
    ours, its = socket.socketpair()
    with ours, its:
        subprocess.run(
            [sys.executable, "-c", SPEAKER, style, str(log_file)],
            env=environment(JOURNAL_STREAM=stream(os.fstat(its.fileno()))),
            stdout=its,
            check=True,
            timeout=20,
        )
        its.shutdown(socket.SHUT_RDWR)
        return ours.makefile(encoding="utf-8").read().splitlines()


def named(status: os.stat_result) -> str:
    """The name that systemd gives a stream."""
    return f"{status.st_dev}:{status.st_ino}"


def test_lines_have_priorities_in_the_journal_but_not_in_the_log_file(tmp_path: Path) -> None:
    log_file = tmp_path / "log"
    lines = spoken("json", log_file, named)
    parts = [line.partition(">") for line in lines]
    assert [mark for mark, _, _ in parts] == ["<7", "<6", "<4", "<3", "<2", "<3"]
    assert [json.loads(rest)["message"] for _, _, rest in parts] == MESSAGES
    assert log_file.read_text().splitlines() == [rest for _, _, rest in parts]


def test_each_line_of_a_traceback_has_the_priority(tmp_path: Path) -> None:
    lines = spoken("console", tmp_path / "log", named)
    traceback = lines[5:]
    assert len(traceback) > 3 and "ZeroDivisionError" in traceback[-1]
    assert all(line.startswith("<3>") for line in traceback)


@pytest.mark.parametrize("stream", ["", "1:1", "nonsense"])
def test_lines_to_another_stdout_have_no_priorities(tmp_path: Path, stream: str) -> None:
    lines = spoken("json", tmp_path / "log", lambda _: stream)
    assert [json.loads(line)["message"] for line in lines] == MESSAGES
    assert not re.search("^<", "\n".join(lines), re.MULTILINE)
