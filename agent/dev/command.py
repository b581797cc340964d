"""The command `python -m agent.dev`."""

import re
import signal
import sys
from pathlib import Path

import click
import gevent
import structlog
from gevent.event import Event

from agent.dev.errors import Refused
from agent.dev.server import DEFAULT_PASSWORD, DevManager
from agent.dev.store.store import Store
from agent.errors import ConfigError
from agent.host import is_loopback

_ADDRESS = re.compile(r"(\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/\[\]@]+)):(?P<port>[0-9]{1,5})")


class BadSetting(click.ClickException):
    """A setting is wrong or cannot be used: exit code 78 (EX_CONFIG of sysexits.h)."""

    exit_code = 78


@click.command(name="python -m agent.dev")
@click.option("--listen", default="127.0.0.1:8000", show_default=True, metavar="HOST:PORT")
@click.option(
    "--agent",
    "agents",
    multiple=True,
    metavar="NAME:KEY",
    envvar="DEV_AGENTS",
    show_envvar=True,
    help="Add an agent; repeatable. The variable has blanks between them.",
)
@click.option("--state", type=click.Path(path_type=Path), help="Keep everything in this file.")
@click.option(
    "--admin-password",
    envvar="DEV_ADMIN_PASSWORD",
    show_envvar=True,
    help="Default: admin123, which is for loopback only.",
)
@click.option("--no-extensions", is_flag=True, help="Do only what today's Manager does.")
def main(
    listen: str,
    agents: tuple[str, ...],
    state: Path | None,
    admin_password: str | None,
    no_extensions: bool,
) -> None:
    """Run a Manager for development, in memory and on loopback. Not for production."""
    match = _ADDRESS.fullmatch(listen)
    if not match or int(match["port"]) > 65535:
        raise BadSetting(f"--listen {listen} must be HOST:PORT, such as 127.0.0.1:8000")
    host, port = match["v6"] or match["host"], int(match["port"])
    if not admin_password and not is_loopback(f"//{listen}"):
        raise BadSetting(f"--listen {listen} is open to other hosts: give --admin-password too")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=lambda *args: structlog.PrintLogger(sys.stderr),
    )
    try:
        store = Store(extensions=not no_extensions, state_file=state)
        for agent in agents:
            _make_known(store, agent)
        store.save()
        _serve(DevManager(store, host, port, admin_password or DEFAULT_PASSWORD), listen)
    except (ConfigError, Refused) as error:
        raise BadSetting(str(error)) from error


def _serve(manager: DevManager, listen: str) -> None:
    try:
        manager.start()
    except OSError as error:
        raise BadSetting(f"--listen {listen}: {error.strerror}: choose another address") from error
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop.set)
    click.echo(f"dev Manager listening on {manager.url}")
    try:
        manager.wait(stop)
    finally:
        manager.stop()


def _make_known(store: Store, agent: str) -> None:
    """Add the agent, or give this key to an agent of that name in the state file."""
    name, _, key = agent.partition(":")
    if not name or not key:
        raise BadSetting("--agent must be NAME:KEY, neither of them empty")
    known = store.agents.named(name)
    if known:
        store.agents.update(known.id, {"registration_key": key})
    else:
        store.agents.add(name, key)
