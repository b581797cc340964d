"""What `--check` finds on this host, without asking anybody else."""

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from agent import files, host
from agent.config.settings import Config
from agent.errors import TaskError
from agent.iperf3.argv import JSON_STREAM
from agent.iperf3.features import OTHER_COUNT, THREADED, UNPACED, Features
from agent.process.ports import find_listener
from agent.serving import Limits, Server
from agent.tasks.installed import InstalledIperf3


class Finding(NamedTuple):
    """One line of the check.

    `fault` is empty if all is well, "warning" for what may be meant so, "settings" for what is
    wrong on this host, "manager" for what is wrong beyond it, and "key" or "agent" for what the
    Manager refuses at a registration.
    """

    name: str
    message: str
    fault: str = ""


def check_host(config: Config, faults: Mapping[str, str]) -> Iterator[Finding]:
    """Check one thing after the other, except for what depends on a wrong setting."""
    user = 0
    if not faults.keys() & {"STATE_DIR", "AGENT_NAME"}:
        finding, user = _state_directory(config)
        yield finding
    if config.log_file:
        yield Finding("log file", _usable(config.log_file))
    if config.status_address:
        yield _status_page(*config.status_address, user)
    try:
        found = InstalledIperf3(config.iperf3_path).ask()
    except TaskError as error:
        yield Finding("iperf3", str(error), "settings")
        return
    counts = Path("/proc/self/io").exists()
    whom = "servers as well" if counts else "clients only, as this host counts for no process"
    limits = f"MAX_BITRATE and MAX_TEST_SECONDS hold for {whom}"
    yield Finding("iperf3", f"{found.version} at {found.path}: {_abilities(found)}; {limits}")


def _state_directory(config: Config) -> tuple[Finding, int]:
    """What is found, and the pid of this agent's own service if that uses the directory, or 0."""
    name, path, pid = "state directory", config.state, 0
    if not files.is_writable_directory(path):
        # An agent starts there all the same, but runs no test.
        advice = "make it writable, or set STATE_DIR to a directory that this user can write"
        return Finding(name, f"{path} is on a read-only disk: {advice}", "settings"), pid
    try:
        files.read_if_there(path / "journal")
        user = files.locked_by(path / "lock")
    except OSError as error:
        advice = "make it a file that this user can read, or set another STATE_DIR"
        return Finding(name, f"{error.filename}: {error.strerror}: {advice}", "settings"), pid
    if user is None:
        return Finding(name, _usable(path)), pid
    number, _, agent = user.strip().partition(" ")
    if agent not in ("", config.agent_name):
        words = f"{path} is in use by pid {number}, the agent {agent}: set another STATE_DIR"
        return Finding(name, words, "settings"), pid
    return Finding(name, f"{path}, in use by pid {number or 'unknown'}"), int(number or 0)


def _usable(path: Path) -> str:
    return str(path) if files.nearest(path) == path else f"{path} can be created"


def _status_page(address: str, port: int, user: int) -> Finding:
    """`user` is the pid of this agent's own service, which may have the port."""
    name, shown = "status page", f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    words = f"http://{shown}/"
    try:
        # As the page's own server takes it.
        server = Server((address, port), None, Limits(1, 1.0, 1))
        server.init_socket()  # type: ignore[no-untyped-call]
        server.close()  # type: ignore[no-untyped-call]
    except OSError as error:
        known = error.errno in errno.errorcode
        fault = os.strerror(error.errno or 0) if known else "its name is not found"
        pid, whom = find_listener(port, address) if error.errno == errno.EADDRINUSE else (0, "")
        if not pid or pid != user:
            fault = f"{whom} listens there" if whom else fault
            advice = "choose a free port, and an address of this host"
            return Finding(name, f"STATUS_ADDRESS {shown}: {fault}: {advice}", "settings")
        words += f", in use by pid {pid}"
    if host.is_loopback(f"//{shown}"):
        return Finding(name, words)
    return Finding(
        name, f"{words}: all who reach this host can read it, without a login", "warning"
    )


def _abilities(found: Features) -> str:
    """What this iperf3 can do, and what it is known to do wrong."""
    live = "live rates" if JSON_STREAM in found.options else "no live rates (3.17 has them)"
    threads = "a thread for each stream"
    if found.release < THREADED:
        threads = "one thread for all streams (3.16 has more)"
    faults = []
    if found.release < OTHER_COUNT:
        faults.append("as a UDP server it makes newer clients see no loss (mended in 3.13)")
    if found.release[:2] in UNPACED:
        faults.append("a bitrate with a burst is not kept (3.10 to 3.17 and 3.19 keep it)")
    return f"{live}, {threads}; known faults: {', '.join(faults) or 'none'}"
