"""A state directory on a file system without hard links: vfat, SMB, and some of FUSE."""

import errno
import signal
from pathlib import Path
from typing import Any

import pytest
from gevent import subprocess

from tests.support.faulty_disk import POSSIBLE, FaultyDisk
from tests.support.harness import Bench, free_port
from tests.support.needs import need

need(POSSIBLE, "a disk that fails on demand needs Linux and gcc")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_the_documents_of_served_tests_arrive(bench: Bench, tmp_path: Path, number: int) -> None:
    disk = FaultyDisk(tmp_path / "faults")
    disk.fail("link", "*", number)
    variables: dict[str, Any] = disk.variables
    agent = bench.agent(**variables)
    server = bench.ended(bench.task("iperf_server_start", port=(port := free_port())))
    for size in (1000, 2000):
        argv = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-n", str(size)]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)  # type: ignore[attr-defined]
        bench.wait(lambda: b'"sum_received"' in bytes(server.result))
        bench.wait(lambda: bench.result(server)["start"]["test_start"]["bytes"] == size)
    assert any(path.endswith(".fresh") for call, path in disk.met() if call == "link")
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
