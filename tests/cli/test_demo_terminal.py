"""The demo on a real terminal: log lines and the progress bar do not mix."""

import os
import pty
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import subprocess
from gevent.os import tp_read

from tests.support.harness import PATIENCE, environment

CLEAR_LINE = "\r\x1b[K"
BAR = re.compile(r"Self-test: TCP over loopback, 5 s +\[[#-]+\] +(\d+)%")
LOG_LINE = re.compile(r"20\d\d-\d\d-\d\dT")
CURSOR_ON = "\x1b[?25h"


class Terminal:
    """`agent-run --dev` on a pseudo-terminal. `output` is what it wrote so far."""

    def __init__(self, directory: Path) -> None:
        self._ours, theirs = pty.openpty()
        self.output = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agent", "--dev", "--debug"],
            cwd=directory,
            env=environment(TERM="xterm", COLUMNS="100"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def read_until(self, pattern: re.Pattern[str]) -> None:
        """Read until the output matches the pattern."""
        with gevent.Timeout(PATIENCE, AssertionError(f"no {pattern} in {self.output}")):
            while not pattern.search(self.output):
                self._read()

    def interrupt(self) -> int:
        """Press Ctrl-C and read to the end; returns the exit code."""
        self._process.send_signal(signal.SIGINT)
        with gevent.Timeout(PATIENCE, AssertionError(f"goes on: {self.output}")):
            while self._read():
                pass
            return int(self._process.wait())

    def close(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def _read(self) -> bool:
        try:
            data: bytes = tp_read(self._ours, 65536)
        except OSError:  # EIO: the other end has been closed
            return False
        self.output += data.decode()
        return bool(data)


@pytest.fixture(name="terminal")
def fixture_terminal(tmp_path: Path) -> Iterator[Terminal]:
    """The demo on a terminal of its own."""
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


@pytest.mark.process
def test_the_bar_advances_and_log_lines_do_not_mix_with_it(terminal: Terminal) -> None:
    terminal.read_until(re.compile(r" 2\d%"))
    assert terminal.interrupt() == 0
    percents = [int(found) for found in BAR.findall(terminal.output)]
    assert len(set(percents)) >= 5
    assert percents == sorted(percents)
    logged = [line for line in terminal.output.split("\n") if LOG_LINE.search(line)]
    assert any("client started" in line for line in logged)
    for line in logged:
        assert CLEAR_LINE in line, line
        assert "%" not in line.rpartition(CLEAR_LINE)[2], line
        assert LOG_LINE.search(line.rpartition(CLEAR_LINE)[2]), line
    assert CURSOR_ON in terminal.output, "Ctrl-C gives the cursor back"
    assert "Traceback" not in terminal.output
    assert "SIGINT" in terminal.output and "100%" not in terminal.output
