"""`agent-run --check`: prints line by line what is right and what is wrong, and changes nothing."""

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import structlog

from agent import files, host
from agent.cli.manager_check import Finding, check_manager
from agent.config.key import weakness
from agent.config.settings import Config
from agent.errors import TaskError
from agent.iperf3.argv import JSON_STREAM
from agent.iperf3.features import OTHER_COUNT, THREADED, UNPACED, Features
from agent.logs.setup import stdout_has_colors
from agent.process.ports import find_listener
from agent.serving import Limits, Server
from agent.state.directory import locked_by
from agent.tasks.installed import InstalledIperf3
from agent.text import printable, to_json

_MARKS = {"": ("ok", "green"), "warning": ("warning", "yellow")}


def print_findings(
    config: Config, faults: Mapping[str, str], slips: list[str], try_key: bool
) -> set[str]:
    """Print a line for each finding, as JSON or in words; returns the kinds of fault found.

    `faults` are those of the settings, by variable, as `check_settings` returns them, and `slips`
    what was written and is ignored. With `try_key` the agent is registered.
    """
    as_json = config.log_format == "json" and "LOG_FORMAT" not in faults
    # It prints lines of its own.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    kinds = set()
    for name, message, fault in _findings(config, faults, slips, try_key):
        kinds.add(fault)
        if as_json:
            line = {
                "check": name,
                "ok": fault in _MARKS,
                "message": message,
                "fault": fault or None,
            }
            click.echo(to_json(line).decode())
        else:
            mark, color = _MARKS.get(fault, ("not ok", "red"))
            line_mark = click.style(f"{mark:7}", fg=color)
            click.echo(f"{line_mark} {name:16} {printable(message)}", color=stdout_has_colors())
    return kinds


def _findings(
    config: Config, faults: Mapping[str, str], slips: list[str], try_key: bool
) -> Iterator[Finding]:
    """Check one thing after the other, except for what depends on a wrong setting."""
    for slip in slips:
        yield Finding("configuration", slip, "warning")
    for fault in faults.values():
        yield Finding("configuration", fault, "settings")
    if not faults:
        warning = weakness(config.agent_key)
        words = f"agent {config.agent_name}, key is set{warning and f'; {warning}'}"
        yield Finding("configuration", words)
    user = 0
    if not faults.keys() & {"STATE_DIR", "AGENT_NAME"}:
        finding, user = _state_directory(config)
        yield finding
    if config.status_address:
        yield _status_page(*config.status_address, user)
    if config.log_file:
        yield Finding("log file", _usable(config.log_file))
    try:
        yield _iperf3(InstalledIperf3(config.iperf3_path).ask())
    except TaskError as error:
        yield Finding("iperf3", str(error), "settings")
    if not any(variable.startswith("MANAGER_") for variable in faults):
        yield from check_manager(config, try_key and not faults)


def _state_directory(config: Config) -> tuple[Finding, int]:
    """The finding, and the pid of this agent's own service if that runs, else 0."""
    path, user, fault = config.state, None, ""
    if not files.is_writable_directory(path):
        # An agent starts there all the same, but runs no test.
        advice = "make it writable, or set STATE_DIR to a directory that this user can write"
        fault = f"{path} is on a read-only disk: {advice}"
    try:
        files.read_if_there(path / "journal")
        user = locked_by(path / "lock")
    except OSError as error:
        advice = "make it a file that this user can read, or set another STATE_DIR"
        fault = f"{error.filename}: {error.strerror}: {advice}"
    pid, _, agent = (user or "").strip().partition(" ")
    if agent not in ("", config.agent_name):
        fault = f"{path} is in use by pid {pid}, the agent {agent}: set another STATE_DIR"
    in_use = "" if user is None else f", in use by pid {pid or 'unknown'}"
    kind = "settings" if fault else ""
    return Finding("state directory", fault or _usable(path) + in_use, kind), int(pid or 0)


def _usable(path: Path) -> str:
    return str(path) if files.nearest(path) == path else f"{path} can be created"


def _status_page(address: str, port: int, user: int) -> Finding:
    """`user` is the pid of this agent's own service, which may have the port."""
    shown = host.place(address, port)
    words, is_private = f"http://{shown}/", host.is_loopback(f"//{shown}")
    try:
        # As the page's own server takes it.
        server = Server((address, port), None, Limits(1, 1.0, 1))
        server.init_socket()
        is_private = host.is_bound_to_loopback(server.socket)
        server.close()  # type: ignore[no-untyped-call]
    except OSError as error:
        pid, whom = find_listener(port, address) if error.errno == errno.EADDRINUSE else (-1, "")
        words += f", in use by pid {user}"
        # Whose it is may be hidden from this user.
        if not user or pid not in (0, user):
            fault = f"{whom} listens there" if whom else error.strerror
            words = f"STATUS_ADDRESS {shown}: {fault}: choose a free port of this host"
            return Finding("status page", words, "settings")
    if is_private:
        return Finding("status page", words)
    words += ": all who reach this host can read it, without a login"
    return Finding("status page", words, "warning")


def _iperf3(found: Features) -> Finding:
    live = "live rates" if JSON_STREAM in found.options else "no live rates (3.17 has them)"
    is_threaded = found.release >= THREADED
    threads = "a thread for each stream" if is_threaded else "one thread for all (3.16 has more)"
    facts = [f"{found.version} at {found.path}: {live}, {threads}"]
    if found.release < OTHER_COUNT:
        facts.append("known fault: with its UDP server, clients from 3.13 on see no loss")
    if found.release[:2] in UNPACED:
        facts.append("known fault: it does not keep to a bitrate with a burst")
    counts = Path("/proc/self/io").exists()
    whom = "servers as well" if counts else "clients only, as this host counts for no process"
    facts.append(f"MAX_BITRATE and MAX_TEST_SECONDS hold for {whom}")
    return Finding("iperf3", "; ".join(facts))
