"""The command `agent-run`: what it runs, and its exit codes."""

import os
import signal
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import click
import structlog
from gevent.event import Event

from agent.cli.options import OPTIONS, GroupedCommand
from agent.config.env_file import misspelt, read_env_file
from agent.config.key import SECRETS, Key
from agent.config.settings import SETTINGS, Config, Texts, check_settings, read_settings
from agent.errors import (
    AgentError,
    AgentUnknown,
    ConfigError,
    KeyRefused,
    ManagerUnavailable,
)
from agent.host import is_loopback
from agent.logs.setup import configure_logging
from agent.service.lifecycle import Agent
from agent.service.signals import StopSignals
from agent.text import printable

# The exit code for each kind of fault that --check finds; the first one counts.
_FAULTS = {
    "settings": ConfigError.exit_code,
    "key": KeyRefused.exit_code,
    "agent": AgentUnknown.exit_code,
    "manager": ManagerUnavailable.exit_code,
}

# Everybody on the host can read a command line, so the key has no option.
_NOT_OPTIONS = ("--agent-key", "--agent-key-file", "--key")

log = structlog.get_logger()


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code. Raises KeyboardInterrupt."""
    try:
        code: int = command.main(arguments, prog_name="agent-run", standalone_mode=False)
        return code
    except click.Abort as abort:  # click's form of KeyboardInterrupt
        raise KeyboardInterrupt from abort
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) and error.option_name in _NOT_OPTIONS:
            words = "set the registration key with AGENT_KEY or AGENT_KEY_FILE"
            error = click.UsageError(f"No such option {error.option_name!r}: {words}.", error.ctx)
        error.show()
    except ConfigError as error:
        for fault in error.faults:
            click.echo(f"agent-run: {printable(fault)}", err=True)
    return ConfigError.exit_code


def _main(
    env_file: str | None,
    debug: bool,
    dev: bool,
    check: bool,
    try_key: bool,
    exit_after_idle: float | None,
    **options: str | None,
) -> int:
    """Register with the Manager, run its iperf3 tests and report the results.

    A flag comes before its variable, such as MANAGER_URL, in the environment, and that before the
    env file. [ ] shows the default. The key has no flag: set AGENT_KEY or AGENT_KEY_FILE.
    """
    if dev and check:
        raise click.UsageError("--dev and --check cannot be used together.")
    if try_key and not check:
        raise click.UsageError("--try-key needs --check.")
    flags = {name: text for name, text in options.items() if text is not None}
    if debug:
        flags["log_level"] = "debug"
    known = [*(setting.variable for setting in SETTINGS), *SECRETS]
    file = read_env_file(env_file, known)
    slips = [*misspelt(os.environ, known), *file.slips]
    places = (os.environ, file)
    if check:
        return _run_check(slips, try_key, flags, *places)
    try:
        if not dev:
            return _run_agent(read_settings(flags, *places), slips, exit_after_idle)
        # Imported here: only the demo needs Flask, which takes 20 MB.
        from agent.cli.demo import demo_settings

        with demo_settings(flags, *places) as (demo, config):
            return _run_agent(config, slips, exit_after_idle, demo.self_test)
    except ConfigError as error:
        # There is no log yet.
        raise ConfigError(*slips, *error.faults) from error


def _run_check(slips: list[str], try_key: bool, flags: Texts, *places: Texts) -> int:
    # Imported here to keep an agent small.
    from agent.cli.check import print_findings

    # The default LOG_FORMAT, json, is for the log and not for the check.
    settings = check_settings(flags, *places, {"LOG_FORMAT": "console"})
    found = print_findings(*settings, slips, try_key)
    return next((code for fault, code in _FAULTS.items() if fault in found), os.EX_OK)


def _run_agent(
    config: Config,
    slips: list[str],
    exit_after_idle: float | None,
    self_test: Callable[[StopSignals], None] | None = None,
) -> int:
    key = Key(config.agent_key, config.agent_key_file)
    signals = StopSignals()
    run_self_test = partial(self_test, signals) if self_test else None
    try:
        writer = configure_logging(
            config.log_level, config.log_format, config.agent_name, key, config.log_file
        )
    except OSError as error:
        reason = f"{error.strerror}: must be a file that this user can write"
        raise ConfigError(f"LOG_FILE {config.log_file} cannot be opened: {reason}") from error
    if urlsplit(config.manager_url).scheme == "http" and not is_loopback(config.manager_url):
        log.warning(
            "MANAGER_URL is plain http: others on the network can read the key and the results;"
            " use https, with MANAGER_CA_FILE for a CA of your own"
        )
    key.warn()
    for slip in slips:
        log.warning(slip)
    try:
        # Python hears of Ctrl-C only after a call of the disk, which may take for ever. So let it
        # end the process at once, like TERM: nothing is begun.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        agent = Agent(config, key, signals)
        signals.install()
        agent.run(exit_after_idle, run_self_test, _status_page(agent, config.status_address))
        return os.EX_OK
    except AgentError as error:
        more = {"advice": error.advice} if error.advice else {}
        log.error("agent ends", error=str(error), exit_code=error.exit_code, **more)
        return error.exit_code
    except Exception:
        log.exception("a bug: agent ends", exit_code=AgentError.exit_code)
        return AgentError.exit_code
    finally:
        writer.close()
        signals.remove()


def _status_page(agent: Agent, address: tuple[str, int] | None) -> Callable[[Event], None] | None:
    """What serves the agent's status page; None without an address."""
    if address is None:
        return None
    # Imported here: prometheus_client and the server take some megabytes.
    from agent.status.server import StatusServer

    return StatusServer(agent.context, agent.registration, address).run


command = GroupedCommand(
    "agent-run",
    callback=_main,
    params=OPTIONS,
    help=_main.__doc__,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
