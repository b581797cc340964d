"""A quota that holds a process up, as the hierarchy of cgroup 2 has it.

Where the CPUs belong to one of cgroup 1, it is the kernel of user-mode Linux that runs the test.
"""

import os
import shutil
import socket
import sys
from pathlib import Path

import gevent
import pytest
from gevent import subprocess

from agent.diagnosis.host import take_sample, was_throttled
from tests.lab.busy import control_group
from tests.support.harness import iperf3_server

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for control groups"),
]
CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")
HAS_CGROUP_2 = CONTROLLERS.exists() and "cpu" in CONTROLLERS.read_text(encoding="ascii").split()
SECONDS = 2
# The first process of a machine whose disk is the host's.
BOOT = f"""#!/bin/sh
export PATH="{os.environ["PATH"]}" PYTHONPATH="{os.environ.get("PYTHONPATH", "")}"
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
cd "{Path.cwd()}"
"{sys.executable}" -m pytest -p no:cacheprovider "{__file__}" >"$SAID" 2>&1
echo o >/proc/sysrq-trigger
sleep 10
"""


@pytest.mark.skipif(not HAS_CGROUP_2, reason="the CPUs do not belong to cgroup 2")
@pytest.mark.parametrize("below", ["", "below"])
def test_a_quota_of_cgroup_2_is_seen_to_hold_up_the_process_that_has_it(below: str) -> None:
    # The other kernel knows no IPv6.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    argv = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", str(SECONDS + 1), "--logfile"]
    with control_group(f"quota-{os.getpid()}", 0.1) as limited, iperf3_server(port) as server:
        # A service may be in a slice, and a container in a pod, that has the quota.
        group = limited / below
        group.mkdir(exist_ok=True)
        with subprocess.Popen([*argv, os.devnull]) as client:
            pids = client.pid, server.pid or 0
            (group / "cgroup.procs").write_text(str(client.pid), encoding="ascii")
            first = [take_sample(pid, "lo") for pid in pids]
            gevent.sleep(SECONDS)
            last = [take_sample(pid, "lo") for pid in pids]
        if below:
            group.rmdir()
    of_client, of_server = map(was_throttled, first, last)
    assert (of_client, bool(of_server)) == (True, False)


@pytest.mark.skipif(HAS_CGROUP_2, reason="this kernel runs the test itself")
@pytest.mark.skipif(not shutil.which("linux.uml"), reason="needs cgroup 2, or user-mode-linux")
def test_a_kernel_whose_cpus_belong_to_cgroup_2_sees_the_same(tmp_path: Path) -> None:
    boot, said = tmp_path / "boot", tmp_path / "said"
    boot.write_text(BOOT, encoding="utf-8")
    boot.chmod(0o700)
    argv = ["linux.uml", "mem=512M", "rootfstype=hostfs", "rw", f"init={boot}", f"SAID={said}"]
    # Without a console it opens no windows.
    argv += ["con=null", "con0=null,fd:1"]
    kernel = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    text = said.read_text(encoding="utf-8") if said.exists() else kernel.stdout
    assert "2 passed" in text, text
