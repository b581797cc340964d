"""The command `agent-run`: its options, what it starts, and its exit codes."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from urllib.parse import urlsplit

import click
import structlog
from gevent.event import Event

from agent.cli.options import GroupedCommand, origins, own_options, setting_options
from agent.config.env_file import EnvFile
from agent.config.key import Key
from agent.config.settings import Config, check_settings, read_settings
from agent.errors import (
    AgentError,
    AgentUnknown,
    ConfigError,
    KeyRefused,
    ManagerUnavailable,
    StateLocked,
)
from agent.host import is_loopback
from agent.logs.setup import configure_logging
from agent.service.lifecycle import Agent
from agent.service.signals import StopSignals

# The numbers are those of sysexits.h.
EXIT_OK = 0
EXIT_BUG = 1
EXIT_UNKNOWN_AGENT = 67
EXIT_UNAVAILABLE = 69
EXIT_LOCKED = 73
EXIT_REFUSED = 77
EXIT_CONFIG = 78

_EXITS: list[tuple[type[AgentError], int]] = [
    (ConfigError, EXIT_CONFIG),
    (StateLocked, EXIT_LOCKED),
    (KeyRefused, EXIT_REFUSED),
    (AgentUnknown, EXIT_UNKNOWN_AGENT),
    (ManagerUnavailable, EXIT_UNAVAILABLE),
]

_REMEDIES: list[tuple[type[AgentError], str]] = [
    (KeyRefused, "give this agent the name, the key and the API_VERSION that its Manager knows"),
    (AgentUnknown, "register AGENT_NAME at the Manager, or enable it there"),
    (ManagerUnavailable, "agent-run --check looks at MANAGER_URL and the way there"),
]

# What a command line would show to everybody on the host.
_NO_FLAGS = ("--agent-key", "--agent-key-file", "--key")
_KEY_GOES = "the registration key goes into AGENT_KEY or a file that AGENT_KEY_FILE names"

log = structlog.get_logger()


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code. Raises KeyboardInterrupt."""
    try:
        code: int = command.main(arguments, prog_name="agent-run", standalone_mode=False)
        return code
    except click.Abort as abort:  # which click makes of a KeyboardInterrupt
        raise KeyboardInterrupt from abort
    except click.NoSuchOption as error:
        if error.option_name in _NO_FLAGS:
            words = f"No such option {error.option_name!r}: {_KEY_GOES}."
            click.UsageError(words, error.ctx).show()
        else:
            error.show()
        return EXIT_CONFIG
    except click.ClickException as error:
        error.show()
        return EXIT_CONFIG
    except ConfigError as error:
        _show_faults(error)
        return EXIT_CONFIG


def _agent_run(
    env_file: EnvFile,
    debug: bool,
    dev: bool,
    check: bool,
    exit_after_idle: float | None,
    **given: str | None,
) -> int:
    """Register with the Manager, run its iperf3 tests and report the results.

    An option that shows a VARIABLE can also be set in the environment or in the env file. A flag
    overrides the environment, which overrides the env file. The registration key has no flag: set
    AGENT_KEY or AGENT_KEY_FILE.
    """
    if dev and check:
        raise click.UsageError("--dev and --check: give one of them.")
    settings = {name: value for name, value in given.items() if value}
    if debug:
        settings["log_level"] = "debug"
    for slip in env_file.slips:
        click.echo(f"agent-run: {slip}", err=True)
    where = origins(click.get_current_context())
    secrets: list[Mapping[str, str]] = [os.environ, env_file.values]
    if check:
        # Only JSON that was asked for: the setting's default is for the log.
        as_json = settings.get("log_format", "").lower() == "json"
        return _check(*check_settings(settings, *secrets, origins=where), as_json)
    with ExitStack() as stack:
        self_test = None
        if dev:
            # Only here, as it needs Flask and costs 20 MB.
            from agent.cli.demo import demo_settings

            demo, settings = stack.enter_context(demo_settings(settings))
            secrets = [{"AGENT_KEY": demo.key}]
            self_test = demo.self_test
        checked = read_settings(settings, *secrets, origins=where)
        return _run_agent(checked, exit_after_idle, self_test)


def _run_agent(
    settings: Config, exit_after_idle: float | None, self_test: Callable[[Event], None] | None
) -> int:
    key = Key(settings.agent_key, settings.agent_key_file)
    signals = StopSignals()
    signals.install()
    errand = partial(_for_readers, self_test, signals) if self_test else None
    try:
        writer = configure_logging(
            settings.log_level, settings.log_format, settings.agent_name, key, settings.log_file
        )
    except OSError as error:
        reason = f"{error.strerror}: must be a file that this user can write"
        raise ConfigError(f"LOG_FILE {settings.log_file} cannot be opened: {reason}") from error
    if urlsplit(settings.manager_url).scheme == "http" and not is_loopback(settings.manager_url):
        log.warning(
            "MANAGER_URL is plain http: the key and the results can be read on the way;"
            " use https, with MANAGER_CA_FILE for a CA of your own"
        )
    try:
        agent = Agent(settings, key, signals)
        agent.run(exit_after_idle, errand, _status_page(agent, settings.status_address))
        return EXIT_OK
    except AgentError as error:
        code = next((code for kind, code in _EXITS if isinstance(error, kind)), EXIT_BUG)
        advice = next((words for kind, words in _REMEDIES if isinstance(error, kind)), None)
        log.error("agent ends", error=str(error), exit_code=code, advice=advice)
        return code
    except Exception:
        log.exception("a bug: agent ends", exit_code=EXIT_BUG)
        return EXIT_BUG
    finally:
        writer.close()
        signals.remove()


def _for_readers(self_test: Callable[[Event], None], signals: StopSignals) -> None:
    """The self-test; when nobody reads its words any more (`| head`), there is no more to do."""
    try:
        self_test(signals.drain)
    except BrokenPipeError:
        signals.name = "SIGPIPE"
        signals.drain.set()


def _status_page(agent: Agent, address: tuple[str, int] | None) -> Callable[[Event], None] | None:
    if address is None:
        return None
    # Only then: prometheus_client and the server cost some megabytes.
    from agent.status.server import StatusServer
    from agent.status.snapshot import AgentState

    return StatusServer(AgentState(agent.context, agent.registration), address).run


def _check(settings: Config, wrong: Mapping[str, str], as_json: bool) -> int:
    """The check's exit code: 78 goes before 69."""
    # Not at the top, like all that an idle agent can do without: it is to stay below 42 MiB.
    from agent.cli.check import check

    faults = check(settings, wrong, as_json)
    if "settings" in faults:
        return EXIT_CONFIG
    return EXIT_UNAVAILABLE if "manager" in faults else EXIT_OK


def _show_faults(error: ConfigError) -> None:
    for fault in error.faults:
        click.echo(f"agent-run: {fault}", err=True)


command = GroupedCommand(
    "agent-run",
    callback=_agent_run,
    params=[*own_options(), *setting_options()],
    help=_agent_run.__doc__,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
