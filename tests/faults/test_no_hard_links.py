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
    assert any(path.endswith(".served") for call, path in disk.met() if call == "link")
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_newest_served_document_arrives_with_the_servers_end_at_the_latest(
    bench: Bench, tmp_path: Path, number: int
) -> None:
    disk = FaultyDisk(tmp_path / "faults")
    variables: dict[str, Any] = disk.variables
    agent = bench.agent(**variables)
    agent.wait_for("registered")
    server = bench.ended(bench.task("iperf_server_start", port=(port := free_port())))
    # The disk is full: a directory that has to grow for one more name does not.
    disk.fail("link", "*", number)
    argv = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-n"]
    for size in (1000, 2000):
        subprocess.run([*argv, str(size)], check=True, capture_output=True)
    agent.wait_for("the document of a served test cannot be kept")
    bench.ended(bench.task("kill_all"))
    bench.wait(lambda: b'"ended"' in bytes(server.result))
    last = bench.result(server)
    assert last["start"]["test_start"]["bytes"] == 2000
    assert "warnings" not in last["agent"]
    (children,) = tmp_path.rglob("children")
    bench.wait(lambda: not any(children.iterdir()))
