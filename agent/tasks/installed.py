"""The iperf3 that is installed: where it is, and what it says it can do."""

import os
import shutil

from agent.iperf3.features import Features, parse_features
from agent.process.child import text_output

# Seconds for `iperf3 --version`, which takes 2 ms.
PROBE_TIMEOUT = 10.0


def file_mark(path: str) -> tuple[int, ...]:
    """What tells a file from the one that an upgrade puts in its place; empty for none."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def iperf3_file(path: str) -> str:
    """Where a program of that name or path is; what was given where it cannot be found."""
    return shutil.which(path) or path


def probe_iperf3(path: str) -> Features:
    """Ask an iperf3 for its version and its options; raises TaskError with the remedy."""
    version = text_output([path, "--version"], PROBE_TIMEOUT)
    options = text_output([path, "--help"], PROBE_TIMEOUT)
    return parse_features(path, version, options)
