"""The configuration: each setting once, with its variable, meaning, kind and default.

A setting comes from its flag, else its environment variable, else the env file, else its default
(`agent.cli.options` makes the flags from this table). It arrives as text; `read_settings` checks
all of them and names every fault at once. Secrets have no flag.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog

from agent import files
from agent.config import types
from agent.config.key import find_key
from agent.config.types import Kind, Network
from agent.errors import ConfigError

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
        MANAGER, "MANAGER_URL", types.url(), "http://localhost:8000", "Where the Manager is."
    )
    api_version: int = _setting(
        MANAGER, "API_VERSION", types.whole(1, 99), "1", "The version of its API."
    )
    manager_ca_file: Path | None = _setting(
        MANAGER,
        "MANAGER_CA_FILE",
        types.readable_file(),
        "",
        "Its CAs [the system's].",
    )
    manager_cert_file: Path | None = _setting(
        MANAGER, "MANAGER_CERT_FILE", types.readable_file(), "", "Our certificate for it."
    )
    manager_cert_key_file: Path | None = _setting(
        MANAGER, "MANAGER_CERT_KEY_FILE", types.readable_file(), "", "The private key of that."
    )
    agent_name: str = _setting(
        AGENT, "AGENT_NAME", types.name(), "agent1", "Its name at the Manager."
    )
    advertise_address: str | None = _setting(
        AGENT,
        "ADVERTISE_ADDRESS",
        types.address(),
        "",
        "For tests [that of the route there].",
    )
    state_dir: Path | None = _setting(
        AGENT,
        "STATE_DIR",
        types.path(),
        "",
        "For results [below ~/.local/state].",
    )
    iperf3_path: str = _setting(
        AGENT, "IPERF3_PATH", Kind("a command or a path", str), "iperf3", "The iperf3 to run."
    )
    status_address: tuple[str, int] | None = _setting(
        AGENT,
        "STATUS_ADDRESS",
        types.host_port(),
        "",
        "HOST:PORT of its page [none].",
    )
    log_level: str = _setting(
        LOGGING,
        "LOG_LEVEL",
        types.one_of("debug", "info", "warning", "error"),
        "info",
        "debug, info, warning or error.",
    )
    log_format: str = _setting(
        LOGGING, "LOG_FORMAT", types.one_of("json", "console"), "json", "json or console."
    )
    log_file: Path | None = _setting(
        LOGGING, "LOG_FILE", types.writable_file(), "", "A file besides stdout."
    )
    heartbeat_interval: float = _setting(
        TIMES, "HEARTBEAT_INTERVAL", types.seconds(0.1, 3600), "5", "Between heartbeats."
    )
    claim_interval: float = _setting(
        TIMES, "CLAIM_INTERVAL", types.seconds(0.05, 3600), "1", "Between claims, when polling."
    )
    stop_grace: float = _setting(
        TIMES, "STOP_GRACE", types.seconds(0, 300), "5", "From TERM to KILL for a child."
    )
    shutdown_timeout: float = _setting(
        TIMES, "SHUTDOWN_TIMEOUT", types.seconds(1, 3600), "30", "For the whole shutdown."
    )
    register_timeout: float = _setting(
        TIMES, "REGISTER_TIMEOUT", types.seconds(1, 86400), "60", "For the registration."
    )
    max_tasks: int = _setting(
        LIMITS, "MAX_TASKS", types.whole(1, 100_000), "1024", "Tasks running at a time."
    )
    max_test_seconds: int = _setting(
        LIMITS, "MAX_TEST_SECONDS", types.whole(1, 86400), "86400", "Longest test."
    )
    max_parallel: int = _setting(
        LIMITS, "MAX_PARALLEL", types.whole(1, 128), "128", "Most streams in a test."
    )
    max_bitrate: int | None = _setting(
        LIMITS, "MAX_BITRATE", types.rate(), "", "Most bit/s in a test [none]."
    )
    max_server_seconds: float | None = _setting(
        LIMITS,
        "MAX_SERVER_SECONDS",
        types.seconds(1, 10**9),
        "",
        "Longest life of a server [none].",
    )
    max_result_bytes: int = _setting(
        LIMITS, "MAX_RESULT_BYTES", types.size(65536), "64M", "Largest result to send."
    )
    max_output_bytes: int = _setting(
        LIMITS, "MAX_OUTPUT_BYTES", types.size(65536), "256M", "Largest output of a child."
    )
    state_max_bytes: int = _setting(
        LIMITS, "STATE_MAX_BYTES", types.size(1024**2), "1G", "Largest state directory."
    )
    allowed_targets: tuple[Network, ...] | None = _setting(
        LIMITS, "ALLOWED_TARGETS", types.networks(), "", "Networks to test against [any]."
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


def setting_fields() -> list["dataclasses.Field[Any]"]:
    """The table's lines, in its order: the fields of Config that have a variable and a flag."""
    return [field for field in dataclasses.fields(Config) if field.metadata]


def changed_settings(config: Config) -> dict[str, str]:
    """The settings that are not the defaults, by variable. No secret is among them."""
    found = {}
    for field in setting_fields():
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


def read_settings(
    given: Mapping[str, str],
    *secrets: Mapping[str, str],
    origins: Mapping[str, str] = MappingProxyType({}),
) -> Config:
    """Check the settings that were given by field name, and find the key.

    `secrets` are the variables to look for AGENT_KEY and AGENT_KEY_FILE in, the first that has
    one of them first; `origins` says in words where a setting was given. Raises ConfigError with
    one fault for each wrong setting.
    """
    config, faults = survey_settings(given, *secrets, origins=origins)
    if faults:
        raise ConfigError(*faults.values())
    return config


def survey_settings(
    given: Mapping[str, str],
    *secrets: Mapping[str, str],
    origins: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Config, dict[str, str]]:
    """The same, but with the default for each wrong setting, and the faults by variable."""
    checked: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for field in setting_fields():
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
        checked["agent_key"], checked["agent_key_file"] = find_key(*secrets)
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
    reason = f", and {error}" if isinstance(error, types.Unfit) else ""
    return f"{variable} is {given}{reason}: must be {kind.accepted}"
