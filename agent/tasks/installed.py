"""The iperf3 that is installed on this host."""

import os
import shutil

import structlog

from agent.iperf3.features import Features, parse_features
from agent.process.output import in_thread
from agent.process.spawn import capture_output

# Seconds for `iperf3 --version`, which takes 2 ms.
PROBE_TIMEOUT = 10.0

log = structlog.get_logger()


class InstalledIperf3:
    """The iperf3 at a path, or of a name on PATH.

    `features` is what it said when it was last asked; None while no usable one is there.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._mark: tuple[int, ...] = ()
        self.features: Features | None = None

    @property
    def version(self) -> str:
        """Its version, empty while no usable one is there."""
        return self.features.version if self.features else ""

    def current(self) -> Features:
        """The features of the iperf3 to run now; raises TaskError.

        It is asked again while it is missing, and after an upgrade has replaced its file.
        """
        # Meanwhile another task may ask anew.
        features, mark = self.features, self._mark
        if features and in_thread(_file_mark, features.path) == mark:
            return features
        found = self.ask()
        log.info("iperf3 found", version=found.version, options=len(found.options))
        return found

    def ask(self) -> Features:
        """Ask it for its version and its options; raises TaskError with the remedy."""
        path = in_thread(shutil.which, self._path) or self._path
        self.features, self._mark = None, in_thread(_file_mark, path)
        version = capture_output([path, "--version"], PROBE_TIMEOUT)
        options = capture_output([path, "--help"], PROBE_TIMEOUT)
        self.features = parse_features(path, version, options)
        return self.features


def _file_mark(path: str) -> tuple[int, ...]:
    """What tells a file from the one that an upgrade puts in its place; empty for no file."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
