"""Readers of the log that stop reading or go away do not stop the agent."""

import array
import fcntl
import json
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import subprocess

from agent.logs.writer import MAX_PENDING_BYTES, MAX_PENDING_LINES
from tests.support.faulty_manager import FaultyManager, well
from tests.support.harness import environment
from tests.support.sockets import MakeManager

pytestmark = pytest.mark.process

# Linux has no smaller pipe, in bytes. It fills 16 times as fast as the usual one.
PIPE_BYTES = 4096

if sys.platform != "linux":
    pytest.skip("pipes of a chosen size are Linux's", allow_module_level=True)


class Piped:
    """An agent at debug level whose stdout is a small pipe that nobody reads."""

    def __init__(self, manager: FaultyManager, directory: Path) -> None:
        settings = {
            "MANAGER_URL": manager.url,
            "AGENT_KEY": "canary",
            "STATE_DIR": str(directory / "state"),
            "LOG_FILE": str(directory / "agent.log"),
            "HEARTBEAT_INTERVAL": "0.1",
            "CLAIM_INTERVAL": "0.05",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent", "--debug"],
            cwd=directory,
            env=environment(**settings),
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout
        self.stdout = self.process.stdout
        fcntl.fcntl(self.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def unread(self) -> int:
        """The number of bytes in the pipe."""
        size = array.array("i", [0])
        fcntl.ioctl(self.stdout, termios.FIONREAD, size)
        return size[0]

    def stop(self) -> int:
        """Stop it; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return int(self.process.wait(timeout=10))


@contextmanager
def piped(manager: FaultyManager, directory: Path) -> Iterator[Piped]:
    """Such an agent, which is killed at the end."""
    agent = Piped(manager, directory)
    try:
        yield agent
    finally:
        agent.process.kill()
        agent.process.wait()
        agent.stdout.close()


def beats(manager: FaultyManager) -> int:
    """The number of heartbeats that have arrived."""
    return manager.calls().count("heartbeat")


def test_heartbeats_continue_while_nobody_reads_the_log(
    faulty: MakeManager, tmp_path: Path
) -> None:
    manager = faulty(well)
    with piped(manager, tmp_path) as agent:
        manager.wait_for(lambda: agent.unread() > PIPE_BYTES - 500)
        so_far = beats(manager)
        manager.wait_for(lambda: beats(manager) >= so_far + 15)
        assert agent.unread() > PIPE_BYTES - 500
        assert agent.stop() == 0


def test_heartbeats_continue_after_the_reader_of_the_log_has_gone(
    faulty: MakeManager, tmp_path: Path
) -> None:
    manager = faulty(well)
    with piped(manager, tmp_path) as agent:
        manager.wait_for(lambda: beats(manager) >= 1)
        agent.stdout.close()
        so_far = beats(manager)
        manager.wait_for(lambda: beats(manager) >= so_far + 10)
        assert agent.stop() == 0
    assert '"agent stopped"' in (tmp_path / "agent.log").read_text()


# Writes more lines than the queue takes while nobody reads, then as many more as it is told to.
TALKER = """
import sys
from agent.logs.writer import LineWriter
writer, lines, padding = LineWriter(), int(sys.argv[1]), " " * int(sys.argv[2])
for number in range(lines):
    writer.write('{"number":%d}%s' % (number, padding))
print("written", file=sys.stderr, flush=True)
for _ in range(int(sys.stdin.readline())):
    writer.write('{"number":-1}%s' % padding)
writer.close(30)
"""
LONG = 100_000


@pytest.mark.parametrize(
    ("written", "padding", "most"),
    [(15_000, 0, MAX_PENDING_LINES), (500, LONG, MAX_PENDING_BYTES // LONG)],
    ids=["many", "long"],
)
@pytest.mark.parametrize("more_lines", [0, 1])
def test_dropped_lines_are_counted(written: int, padding: int, most: int, more_lines: int) -> None:
    talker = subprocess.Popen(
        [sys.executable, "-c", TALKER, str(written), str(padding)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert talker.stdin and talker.stdout and talker.stderr
        with gevent.Timeout(20):
            assert talker.stderr.readline() == "written\n"
            early = [talker.stdout.readline() for _ in range(most // 2)]
            output, _ = talker.communicate(f"{more_lines}\n")
    finally:
        talker.kill()
        talker.wait()
    lines: list[dict[str, Any]] = [json.loads(line) for line in [*early, *output.splitlines()]]
    dropped = [line for line in lines if line.get("message") == "log lines dropped"]
    assert all({"timestamp", "level"} <= set(line) for line in dropped)
    numbers = [line["number"] for line in lines if "number" in line]
    lost = written + more_lines - len(numbers)
    assert sum(line["count"] for line in dropped) == lost > 0
    first = numbers[: len(numbers) - more_lines]
    assert first == sorted(set(first)), "what was not dropped is in order"
    assert numbers[len(first) :] == [-1] * more_lines
    # The pipe has some as well.
    assert most * 0.9 < len(first) < written
