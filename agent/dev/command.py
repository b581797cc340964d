"""The command `python -m agent.dev`."""

import signal
import sys
from pathlib import Path

import click
import gevent
import structlog
from gevent.event import Event

from agent.config.types import HOST_PORT
from agent.dev.errors import Refused
from agent.dev.server import DEFAULT_PASSWORD, DevManager
from agent.dev.store.store import Store
from agent.errors import ConfigError
from agent.host import is_loopback


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
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=lambda *args: structlog.PrintLogger(sys.stderr),
    )
    try:
        store = Store(extensions=not no_extensions, state_file=state)
        for agent in agents:
            _make_known(store, agent)
        store.save()
        _serve(store, listen, admin_password)
    except (ConfigError, Refused) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(ConfigError.exit_code)


def _serve(store: Store, listen: str, password: str | None) -> None:
    try:
        host, port = HOST_PORT.convert(listen)
        if not password and not is_loopback(f"//{listen}"):
            raise ConfigError(f"--listen {listen} is open to other hosts: give --admin-password")
        manager = DevManager(store, host, port, password or DEFAULT_PASSWORD)
        manager.start()
    except ValueError as error:
        raise ConfigError(f"--listen {listen} must be HOST:PORT, such as 127.0.0.1:8000") from error
    except OSError as error:
        raise ConfigError(f"--listen {listen}: {error.strerror}: choose another address") from error
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
        raise ConfigError("--agent must be NAME:KEY, neither of them empty")
    if known := store.agents.named(name):
        store.agents.update(known.id, {"registration_key": key})
    else:
        store.agents.add(name, key)
