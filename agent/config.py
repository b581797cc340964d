"""The configuration: each setting once, with its variable, meaning, kind and default.

A setting comes from its flag, else its environment variable, else the env file, else its default
(`agent.cli` makes the flags from this table). It arrives as text; `read` checks them all and
names every fault at once. Secrets have no flag.
"""

import dataclasses
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog

from agent import files, values
from agent.errors import ConfigError
from agent.values import Kind, Network

PLACEHOLDER_KEY = "your-registration-key-here"
CREDENTIAL = "agent-key"
SECRETS = ("AGENT_KEY", "AGENT_KEY_FILE")
KEY_ACCEPTED = "the registration key that the Manager gave this agent"

log = structlog.get_logger()

MANAGER = "The Manager"
AGENT = "This agent"
LOGGING = "Logging"
TIMES = "Times in seconds"
LIMITS = "Limits"


def _setting(group: str, variable: str, kind: Kind, default: str, about: str) -> Any:
    """One line of the table. `default` is text too; an empty one means "not set"."""
    metadata = {
        "group": group,
        "variable": variable,
        "kind": kind,
        "default": default,
        "about": about,
    }
    return dataclasses.field(metadata=metadata)


@dataclass(frozen=True)
class Config:
    """The checked settings. Times are in seconds, sizes in bytes, rates in bits per second."""

    manager_url: str = _setting(
        MANAGER, "MANAGER_URL", values.url(), "http://localhost:8000", "Where the Manager is."
    )
    api_version: int = _setting(
        MANAGER, "API_VERSION", values.whole(1, 99), "1", "The version of its API."
    )
    manager_ca_file: Path | None = _setting(
        MANAGER,
        "MANAGER_CA_FILE",
        values.readable_file(),
        "",
        "Its CAs [the system's].",
    )
    manager_cert_file: Path | None = _setting(
        MANAGER, "MANAGER_CERT_FILE", values.readable_file(), "", "Our certificate for it."
    )
    manager_cert_key_file: Path | None = _setting(
        MANAGER, "MANAGER_CERT_KEY_FILE", values.readable_file(), "", "The private key of that."
    )
    agent_name: str = _setting(
        AGENT, "AGENT_NAME", values.name(), "agent1", "Its name at the Manager."
    )
    advertise_address: str | None = _setting(
        AGENT,
        "ADVERTISE_ADDRESS",
        values.address(),
        "",
        "For tests [that of the route there].",
    )
    state_dir: Path | None = _setting(
        AGENT,
        "STATE_DIR",
        values.path(),
        "",
        "For results [below ~/.local/state].",
    )
    iperf3_path: str = _setting(
        AGENT, "IPERF3_PATH", Kind("a command or a path", str), "iperf3", "The iperf3 to run."
    )
    status_address: tuple[str, int] | None = _setting(
        AGENT,
        "STATUS_ADDRESS",
        values.host_port(),
        "",
        "HOST:PORT of its page [none].",
    )
    log_level: str = _setting(
        LOGGING,
        "LOG_LEVEL",
        values.one_of("debug", "info", "warning", "error"),
        "info",
        "debug, info, warning or error.",
    )
    log_format: str = _setting(
        LOGGING, "LOG_FORMAT", values.one_of("json", "console"), "json", "json or console."
    )
    log_file: Path | None = _setting(
        LOGGING, "LOG_FILE", values.writable_file(), "", "A file besides stdout."
    )
    heartbeat_interval: float = _setting(
        TIMES, "HEARTBEAT_INTERVAL", values.seconds(0.1, 3600), "5", "Between heartbeats."
    )
    claim_interval: float = _setting(
        TIMES, "CLAIM_INTERVAL", values.seconds(0.05, 3600), "1", "Between claims, when polling."
    )
    stop_grace: float = _setting(
        TIMES, "STOP_GRACE", values.seconds(0, 300), "5", "From TERM to KILL for a child."
    )
    shutdown_timeout: float = _setting(
        TIMES, "SHUTDOWN_TIMEOUT", values.seconds(1, 3600), "30", "For the whole shutdown."
    )
    register_timeout: float = _setting(
        TIMES, "REGISTER_TIMEOUT", values.seconds(1, 86400), "60", "For the registration."
    )
    max_tasks: int = _setting(
        LIMITS, "MAX_TASKS", values.whole(1, 100_000), "1024", "Tasks running at a time."
    )
    max_test_seconds: int = _setting(
        LIMITS, "MAX_TEST_SECONDS", values.whole(1, 86400), "86400", "Longest test."
    )
    max_parallel: int = _setting(
        LIMITS, "MAX_PARALLEL", values.whole(1, 128), "128", "Most streams in a test."
    )
    max_bitrate: int | None = _setting(
        LIMITS, "MAX_BITRATE", values.rate(), "", "Most bit/s in a test [none]."
    )
    max_server_seconds: float | None = _setting(
        LIMITS,
        "MAX_SERVER_SECONDS",
        values.seconds(1, 10**9),
        "",
        "Longest life of a server [none].",
    )
    max_result_bytes: int = _setting(
        LIMITS, "MAX_RESULT_BYTES", values.size(65536), "64M", "Largest result to send."
    )
    max_output_bytes: int = _setting(
        LIMITS, "MAX_OUTPUT_BYTES", values.size(65536), "256M", "Largest output of a child."
    )
    state_max_bytes: int = _setting(
        LIMITS, "STATE_MAX_BYTES", values.size(1024**2), "1G", "Largest state directory."
    )
    allowed_targets: tuple[Network, ...] | None = _setting(
        LIMITS, "ALLOWED_TARGETS", values.networks(), "", "Networks to test against [any]."
    )
    agent_key: str = dataclasses.field(default="", repr=False)
    agent_key_file: Path | None = None

    @property
    def state(self) -> Path:
        """The state directory: as set, or systemd's, or below the user's state directory.

        Raises ConfigError for a user without a home.
        """
        if self.state_dir:
            return self.state_dir
        if given := os.environ.get("STATE_DIRECTORY"):
            return Path(given.split(":")[0])
        try:
            home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        except RuntimeError as error:
            words = "STATE_DIR is not set, and this user has no home directory: must be a path"
            raise ConfigError(words) from error
        return Path(home) / "iperf-agent" / self.agent_name

    def check_state(self) -> None:
        """Raise ConfigError where the state directory is none that this user can have.

        One on a read-only disk does: that may be mended while the agent runs.
        """
        path = self.state
        if not files.is_writable_directory(path) and not files.is_read_only(path):
            accepted = "a directory that this user can write"
            raise ConfigError(f"STATE_DIR {path} cannot be used: must be {accepted}")


class Key:
    """The registration key as it is now: a file that has changed is read again."""

    def __init__(self, config: Config) -> None:
        self._key, self._path = config.agent_key, config.agent_key_file
        self._changed = self._modified()

    def __call__(self) -> str:
        """The key; the last good one while its file is missing or wrong."""
        changed = self._modified()
        if self._path and changed != self._changed:
            self._changed = changed
            try:
                self._key = read_key_file(self._path)
            except ConfigError as error:
                log.error("the key file has changed and is not usable", faults=error.faults)
        return self._key

    def _modified(self) -> int:
        try:
            return os.stat(self._path).st_mtime_ns if self._path else 0
        except OSError:
            return 0


def settings() -> list["dataclasses.Field[Any]"]:
    """The table's lines, in its order: the fields of Config that have a variable and a flag."""
    return [field for field in dataclasses.fields(Config) if field.metadata]


def changed(config: Config) -> dict[str, str]:
    """The settings that are not the defaults, by variable. No secret is among them."""
    found = {}
    for field in settings():
        default = field.metadata["default"]
        value = getattr(config, field.name)
        if value != (field.metadata["kind"].read(default) if default else None):
            found[field.metadata["variable"]] = _in_words(value)
    return found


def _in_words(value: object) -> str:
    """A checked value as it could be given; a tuple is networks, or a host and a port."""
    if isinstance(value, tuple):
        return (":" if isinstance(value[-1], int) else ",").join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def read(
    given: Mapping[str, str],
    *secrets: Mapping[str, str],
    origins: Mapping[str, str] = MappingProxyType({}),
) -> Config:
    """Check the settings that were given by field name, and find the key.

    `secrets` are the variables to look for AGENT_KEY and AGENT_KEY_FILE in, the first that has
    one of them first; `origins` says in words where a setting was given. Raises ConfigError with
    one fault for each wrong setting.
    """
    config, faults = survey(given, *secrets, origins=origins)
    if faults:
        raise ConfigError(*faults.values())
    return config


def survey(
    given: Mapping[str, str],
    *secrets: Mapping[str, str],
    origins: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Config, dict[str, str]]:
    """The same, but with the default for each wrong setting, and the faults by variable."""
    checked: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for field in settings():
        variable, kind = field.metadata["variable"], field.metadata["kind"]
        default = field.metadata["default"]
        checked[field.name] = kind.read(default) if default else None
        if text := given.get(field.name):
            try:
                checked[field.name] = kind.read(text)
            except ValueError as error:
                faults[variable] = _fault(variable, kind, text, origins.get(field.name), error)
    if bool(given.get("manager_cert_file")) != bool(given.get("manager_cert_key_file")):
        pair = "MANAGER_CERT_FILE and MANAGER_CERT_KEY_FILE"
        faults[pair] = f"{pair}: give both or neither"
    try:
        checked["agent_key"], checked["agent_key_file"] = _find_key(*secrets)
    except ConfigError as error:
        faults["AGENT_KEY"] = str(error)
    config = Config(**checked)
    if not faults.keys() & {"STATE_DIR", "AGENT_NAME"}:
        try:
            config.check_state()
        except ConfigError as error:
            faults["STATE_DIR"] = str(error)
    return config, faults


def _fault(variable: str, kind: Kind, text: str, origin: str | None, error: ValueError) -> str:
    """The fault in words: what was given and where, what is accepted, and what about it is not."""
    given = f"{kind.shown(text)!r} ({origin})" if origin else repr(kind.shown(text))
    reason = f", and {error}" if isinstance(error, values.Unfit) else ""
    return f"{variable} is {given}{reason}: must be {kind.accepted}"


def _find_key(*places: Mapping[str, str]) -> tuple[str, Path | None]:
    """The key and the file it came from: AGENT_KEY, AGENT_KEY_FILE, or systemd's credential."""
    for variables in places:
        key, given = variables.get("AGENT_KEY"), variables.get("AGENT_KEY_FILE")
        if key and given:
            raise ConfigError("AGENT_KEY and AGENT_KEY_FILE are both set: give one of them")
        if key:
            return _checked_key("AGENT_KEY", key), None
        if given:
            path = Path(os.path.expanduser(given))
            return read_key_file(path), path
        if directory := variables.get("CREDENTIALS_DIRECTORY"):
            path = Path(directory) / CREDENTIAL
            if path.exists():
                return read_key_file(path), path
    raise ConfigError(f"AGENT_KEY is not set: must be {KEY_ACCEPTED}, or set AGENT_KEY_FILE")


def read_key_file(path: Path) -> str:
    """The key in a file, without the blanks around it.

    A file that everybody can read is refused; its group may read it (Kubernetes mounts secrets
    so). Raises ConfigError.
    """
    try:
        if os.stat(path).st_mode & stat.S_IROTH:
            raise ConfigError(f"AGENT_KEY_FILE {path} is readable by everybody: chmod 0600 it")
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"AGENT_KEY_FILE {path} cannot be read: {error}") from error
    return _checked_key(f"AGENT_KEY_FILE {path}", key)


def _checked_key(source: str, key: str) -> str:
    if key == PLACEHOLDER_KEY:
        raise ConfigError(f"{source} is still the example's: must be {KEY_ACCEPTED}")
    if not key or not key.isascii() or not key.isprintable() or key != key.strip():
        raise ConfigError(f"{source} is empty or not plain text: must be {KEY_ACCEPTED}")
    return key
