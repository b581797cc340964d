"""iperf3s that are newer than the installed one, from other releases of Debian."""

import os
import sys
from pathlib import Path

import pytest
from gevent import subprocess

FETCH = Path(__file__).with_name("newer_iperf3.sh")
# It takes 5 s on a good line; a test may take 60 s in all.
PATIENCE = 45


def newer_iperf3(suite: str) -> str:
    """The path of that Debian's iperf3, which is fetched once and kept beside the interpreter.

    Where it cannot be had the test is skipped, in CI it fails.
    """
    directory = Path(sys.prefix) / f"iperf3-{suite}"
    fetch = ["timeout", str(PATIENCE), str(FETCH), suite, str(directory)]
    done = subprocess.run(fetch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        said = (done.stdout.splitlines() or [f"exit code {done.returncode}"])[-1]
        words = f"no iperf3 of Debian {suite}: {said}"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    return str(directory / "iperf3")
