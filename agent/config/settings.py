"""The settings: each with its meaning, type and default, as a field of the class Config.

A setting comes from its flag, else the environment, else the env file, else its default.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from agent import files
from agent.config import types
from agent.config.env_file import place_of
from agent.config.key import find_key
from agent.config.types import InvalidValue, Kind, Network
from agent.errors import ConfigError

Texts = Mapping[str, str]


@dataclass(frozen=True)
class Setting:
    """What is known of a setting besides its value.

    `group` is its heading in the help, and `about` its line there, which may end with words in
    brackets for what applies by default. An empty `default` means "not set".
    """

    name: str
    group: str
    about: str
    kind: Kind
    default: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return self.name.upper()

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return f"--{self.name.replace('_', '-')}"


def _setting(group: str, about: str, kind: Kind, default: str = "") -> Any:
    known = {"group": group, "about": about, "kind": kind, "default": default}
    return field(default=kind.parse(default) if default else None, metadata=known)


_manager = partial(_setting, "The Manager")
_agent = partial(_setting, "This agent")
_logging = partial(_setting, "Logging")
_time = partial(_setting, "Times in seconds")
_limit = partial(_setting, "Limits")


@dataclass(frozen=True)
class Config:
    """The checked settings. Times are in seconds, sizes in bytes, rates in bits per second.

    `changed` has those that differ from their defaults, as they were given, by variable; no secret.
    """

    manager_url: str = _manager("URL", types.URL, "http://localhost:8000")
    api_version: int = _manager("API version", types.whole(1, 99), "1")
    manager_ca_file: Path | None = _manager("Trusted CA file [system CAs]", types.READABLE_FILE)
    manager_cert_file: Path | None = _manager("Client certificate", types.READABLE_FILE)
    manager_cert_key_file: Path | None = _manager(
        "Private key for MANAGER_CERT_FILE", types.READABLE_FILE
    )
    agent_name: str = _agent("Name known to the Manager", types.NAME, "agent1")
    advertise_address: str | None = _agent("Address peers connect to [detected]", types.ADDRESS)
    state_dir: Path | None = _agent("State files [under ~/.local/state]", types.PATH)
    iperf3_path: str = _agent("iperf3 executable", types.PROGRAM, "iperf3")
    status_address: tuple[str, int] | None = _agent(
        "HOST:PORT of the status page [none]", types.HOST_PORT
    )
    log_level: str = _logging("Level", types.one_of("debug", "info", "warning", "error"), "info")
    log_format: str = _logging("Format", types.one_of("json", "console"), "json")
    log_file: Path | None = _logging("Also log to this file [none]", types.WRITABLE_FILE)
    heartbeat_interval: float = _time("Between heartbeats", types.seconds(0.1, 3600), "5")
    claim_interval: float = _time("Between polls for tasks", types.seconds(0.05, 3600), "1")
    stop_grace: float = _time("From TERM to KILL of a child", types.seconds(0, 300), "5")
    shutdown_timeout: float = _time("For the whole shutdown", types.seconds(1, 3600), "30")
    register_timeout: float = _time("For the first registration", types.seconds(1, 86400), "60")
    max_tasks: int = _limit("Concurrent tasks", types.whole(1, 100_000), "1024")
    max_test_seconds: int = _limit("Longest test, in seconds", types.whole(1, 86400), "86400")
    max_parallel: int = _limit("Streams per test", types.whole(1, 128), "128")
    max_bitrate: int | None = _limit("Bit/s per test [none]", types.RATE)
    max_server_seconds: float | None = _limit(
        "Server lifetime, in seconds [none]", types.seconds(1, 10**9)
    )
    max_result_bytes: int = _limit("Largest result to send", types.size(65536), "64M")
    max_output_bytes: int = _limit("Largest output of a child", types.size(65536), "256M")
    state_max_bytes: int = _limit("Largest size of STATE_DIR", types.size(1024**2), "1G")
    allowed_targets: tuple[Network, ...] | None = _limit(
        "Networks tests may target [any]", types.NETWORKS
    )
    agent_key: str = field(default="", repr=False)
    agent_key_file: Path | None = None
    changed: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """The state directory: as set, else systemd's, else one in the user's home directory.

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


SETTINGS = tuple(Setting(each.name, **each.metadata) for each in fields(Config) if each.metadata)


def read_settings(flags: Texts, *places: Texts) -> Config:
    """The checked settings and the key; raises ConfigError with all the faults.

    `flags` has texts by field name, each of `places` (env files, or the environment) by variable.
    """
    config, faults = check_settings(flags, *places)
    if faults:
        raise ConfigError(*faults.values())
    return config


def check_settings(flags: Texts, *places: Texts) -> tuple[Config, dict[str, str]]:
    """Like `read_settings`, but take the default for a wrong setting; the faults by variable."""
    changed: dict[str, str] = {}
    values: dict[str, Any] = {"changed": changed}
    faults: dict[str, str] = {}
    given = set()
    for setting in SETTINGS:
        text, origin = _find(setting, flags, places)
        if not text:
            continue
        given.add(setting.name)
        try:
            values[setting.name] = setting.kind.parse(text)
            if values[setting.name] != getattr(Config, setting.name):
                changed[setting.variable] = text
        except ValueError as error:
            shown = f"{setting.variable} is {setting.kind.redact(text)!r} ({origin})"
            reason = f" ({error})" if isinstance(error, InvalidValue) else ""
            faults[setting.variable] = f"{shown}: must be {setting.kind.accepted}{reason}"
    if len(given & {"manager_cert_file", "manager_cert_key_file"}) == 1:
        pair = "MANAGER_CERT_FILE and MANAGER_CERT_KEY_FILE"
        faults[pair] = f"{pair}: set both or neither"
    try:
        values["agent_key"], values["agent_key_file"] = find_key(*places)
    except ConfigError as error:
        faults["AGENT_KEY"] = str(error)
    config = Config(**values)
    if not faults.keys() & {"STATE_DIR", "AGENT_NAME"}:
        try:
            path = config.state
            # A read-only disk may become writable while the agent runs.
            if not files.is_writable_directory(path) and not files.is_read_only(path):
                accepted = "a directory that this user can write"
                raise ConfigError(f"STATE_DIR {path} cannot be used: must be {accepted}")
        except ConfigError as error:
            faults["STATE_DIR"] = str(error)
    return config, faults


def _find(setting: Setting, flags: Texts, places: Iterable[Texts]) -> tuple[str, str]:
    """The text that a setting is given as, and where, in words; empty ones if it is not given."""
    if setting.name in flags:
        return flags[setting.name], setting.flag
    for place in places:
        if text := place.get(setting.variable):
            return text, place_of(setting.variable, place)
    return "", ""
