"""The registration key: where it may be given, what is accepted, and how its file is read again."""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog

from agent.errors import ConfigError
from agent.native_threads import Looks, NativeThreads

PLACEHOLDER_KEY = "your-registration-key-here"
CREDENTIAL = "agent-key"
# Characters. A Manager's own is far shorter, and a server takes no header much longer than this.
MAX_KEY = 4096
SHORT_KEY = 8
SECRETS = ("AGENT_KEY", "AGENT_KEY_FILE")
KEY_ACCEPTED = "the registration key that the Manager gave this agent"

# Seconds. A heartbeat may be that late, once, when the disk stands still.
LOOK_TAKES = 0.2
_THREADS = NativeThreads(1)

log = structlog.get_logger()


def weakness(key: str) -> str:
    """What is wrong with a key that works all the same; empty if nothing is."""
    if len(key) >= SHORT_KEY:
        return ""
    words = f"the registration key has fewer than {SHORT_KEY} characters"
    return f"{words}, and can be guessed: give this agent a longer one at the Manager"


class Key:
    """The registration key. A key file that changes is read again."""

    def __init__(self, key: str, path: Path | None) -> None:
        """Start with the key that was found, and the file that it came from, if any."""
        self._key, self._path = key, path
        self._faults: tuple[str, ...] = ()
        self._looks = Looks[None](LOOK_TAKES)

    def __call__(self) -> str:
        """The key that was found last: nothing waits for its file."""
        return self._key

    def fresh(self) -> str:
        """The current key, or the last valid one while its file is missing, invalid or held up."""
        # There may be no room for a thread at the moment.
        with suppress(OSError):
            if self._path:
                self._looks.take(partial(self._read_again, self._path))
        return self._key

    def _read_again(self, path: Path) -> None:
        try:
            key = _THREADS.call(read_key_file, path)
        except ConfigError as error:
            if error.faults != self._faults:
                log.error("the key file has changed and is not usable", faults=error.faults)
            self._faults = error.faults
            return
        self._faults = ()
        if key != self._key:
            self._key = key
            self.warn()

    def warn(self) -> None:
        """Log what is wrong with the key."""
        if words := weakness(self._key):
            log.warning(words)


def find_key(*places: Mapping[str, str]) -> tuple[str, Path | None]:
    """The key and the file it came from: AGENT_KEY, AGENT_KEY_FILE, or systemd's credential.

    The first of the places that has one of them counts. Raises ConfigError.
    """
    for variables in places:
        key, given = variables.get("AGENT_KEY"), variables.get("AGENT_KEY_FILE")
        if key and given:
            raise ConfigError("AGENT_KEY and AGENT_KEY_FILE are both set: set only one of them")
        if key:
            return _checked_key("AGENT_KEY", key), None
        if given:
            path = Path(os.path.expanduser(given))
            return read_key_file(path), path
        if directory := variables.get("CREDENTIALS_DIRECTORY"):
            path = Path(directory) / CREDENTIAL
            # Path.exists() raises OSError for a directory that may not be searched.
            if os.path.exists(path):
                return read_key_file(path), path
    raise ConfigError(f"AGENT_KEY is not set: must be {KEY_ACCEPTED}, or set AGENT_KEY_FILE")


def read_key_file(path: Path) -> str:
    """The key in a file, without surrounding white space.

    A file that everybody can read is refused; its group may read it, since Kubernetes mounts
    secrets that way. Raises ConfigError.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):  # a pipe would wait for a writer, and /dev/zero has no end
            raise ConfigError(f"AGENT_KEY_FILE {path} cannot be read: it is no regular file")
        if mode & stat.S_IROTH:
            raise ConfigError(f"AGENT_KEY_FILE {path} is readable by everybody: chmod 0600 it")
        with open(path) as file:
            key = file.read(MAX_KEY + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "it is no text in UTF-8")
        raise ConfigError(f"AGENT_KEY_FILE {path} cannot be read: {reason}") from error
    return _checked_key(f"AGENT_KEY_FILE {path}", key)


def _checked_key(source: str, key: str) -> str:
    if key == PLACEHOLDER_KEY:
        raise ConfigError(f"{source} is still the example value: must be {KEY_ACCEPTED}")
    if not key or not key.isascii() or not key.isprintable() or key != key.strip():
        raise ConfigError(f"{source} is empty or not plain text: must be {KEY_ACCEPTED}")
    if len(key) > MAX_KEY:
        raise ConfigError(f"{source} has more than {MAX_KEY} characters: must be {KEY_ACCEPTED}")
    return key
