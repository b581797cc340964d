"""The state directory: private, and one agent's at a time."""

import fcntl
import os
from pathlib import Path

from agent.errors import ConfigError, StateLocked


class StateDirectory:
    """An opened and locked state directory. `children` holds what the iperf3 children write."""

    def __init__(self, path: Path) -> None:
        """Make the directory if need be, and lock it for the life of this process.

        What an earlier process left in `children` is removed. Raises StateLocked when another
        process has the directory, ConfigError when it cannot be written.
        """
        self.children = path / "children"
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.children.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            reason = f"{error.strerror}: must be a directory that this user can write"
            raise ConfigError(f"STATE_DIR {path} cannot be used: {reason}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            advice = "stop it, or give this one another AGENT_NAME or STATE_DIR"
            raise StateLocked(f"another agent runs in {path}: {advice}") from error
        try:
            for left in self.children.iterdir():
                left.unlink()
        except OSError as error:
            raise ConfigError(f"STATE_DIR {path} cannot be cleared: {error}: remove it") from error
