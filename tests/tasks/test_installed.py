"""Which iperf3 a task runs while another task finds a new one."""

import shutil
from pathlib import Path
from typing import Any

import gevent
import pytest

from agent.process.spawn import capture_output
from agent.tasks import installed
from agent.tasks.installed import InstalledIperf3

# Seconds that each look at the disk, and each question to iperf3, takes.
SLOW = 0.1


@pytest.mark.process
def test_a_task_that_looks_while_another_one_asks_gets_features_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = shutil.which("iperf3")
    assert program
    path = tmp_path / "iperf3"
    path.symlink_to(program)
    found = InstalledIperf3(str(path))
    assert found.current() is found.current()

    def slowly(found: Any) -> Any:
        gevent.sleep(SLOW)
        return found

    monkeypatch.setattr(installed, "in_thread", lambda look, *args: slowly(look(*args)))
    monkeypatch.setattr(installed, "capture_output", lambda *args: slowly(capture_output(*args)))
    path.unlink()
    shutil.copy(program, path)
    first = gevent.spawn(found.current)
    # By now the first one knows of the new file, and has not noted it yet.
    second = gevent.spawn_later(2.5 * SLOW, found.current)
    assert [each.get().path for each in (first, second)] == [str(path)] * 2
