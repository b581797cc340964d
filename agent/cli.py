"""The command `agent-run`: its options, what it starts, and its exit codes."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import click
import structlog

from agent import __version__, config, logs
from agent.check import findings
from agent.config import Config, Key
from agent.errors import (
    AgentError,
    AgentUnknown,
    ConfigError,
    KeyRefused,
    ManagerUnavailable,
    StateLocked,
)
from agent.lifecycle import Agent
from agent.options import GroupedCommand, SettingOption, load_env_file, setting_options
from agent.signals import StopSignals

# The numbers are those of sysexits.h.
EXIT_OK = 0
EXIT_BUG = 1
EXIT_UNKNOWN_AGENT = 67
EXIT_UNAVAILABLE = 69
EXIT_LOCKED = 73
EXIT_REFUSED = 77
EXIT_CONFIG = 78
# What a shell shows for a command that Ctrl-C ended.
EXIT_INTERRUPTED = 130

_EXITS: list[tuple[type[AgentError], int]] = [
    (ConfigError, EXIT_CONFIG),
    (StateLocked, EXIT_LOCKED),
    (KeyRefused, EXIT_REFUSED),
    (AgentUnknown, EXIT_UNKNOWN_AGENT),
    (ManagerUnavailable, EXIT_UNAVAILABLE),
]

log = structlog.get_logger()


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    try:
        code: int = command.main(arguments, prog_name="agent-run", standalone_mode=False)
        return code
    except click.Abort:
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return EXIT_CONFIG
    except ConfigError as error:
        _show_faults(error)
        return EXIT_CONFIG


def _agent_run(
    env_file: Mapping[str, str],
    debug: bool,
    dev: bool,
    check: bool,
    exit_after_idle: float | None,
    **given: str | None,
) -> int:
    """Run the agent: register with the Manager, claim iperf3 tasks, report what happened.

    Each option has an environment variable, shown in its place for a value. A flag goes before
    the environment, and that before the env file. AGENT_KEY, or AGENT_KEY_FILE, has no flag.
    """
    settings = {name: value for name, value in given.items() if value}
    if debug:
        settings["log_level"] = "debug"
    secrets = {**env_file, **os.environ}
    if check:
        return _check(settings, secrets)
    with ExitStack() as stack:
        errand = None
        if dev:
            # Only here, as it needs Flask and costs 20 MB.
            from agent.demo import demo_settings

            demo, settings = stack.enter_context(demo_settings(settings))
            secrets = {"AGENT_KEY": demo.key}
            errand = demo.self_test
        return _run_agent(config.read(settings, secrets), exit_after_idle, errand)


def _run_agent(
    settings: Config, exit_after_idle: float | None, errand: Callable[[], None] | None
) -> int:
    key = Key(settings)
    signals = StopSignals()
    signals.install()
    try:
        writer = logs.configure(
            settings.log_level, settings.log_format, settings.agent_name, key, settings.log_file
        )
    except OSError as error:
        raise ConfigError(f"LOG_FILE {settings.log_file}: {error.strerror}") from error
    try:
        Agent(settings, key, signals).run(exit_after_idle, errand)
        return EXIT_OK
    except AgentError as error:
        code = next((code for kind, code in _EXITS if isinstance(error, kind)), EXIT_BUG)
        log.error("agent ends", error=str(error), exit_code=code)
        return code
    except Exception:
        log.exception("a bug: agent ends", exit_code=EXIT_BUG)
        return EXIT_BUG
    finally:
        writer.close()
        signals.remove()


def _check(settings: Mapping[str, str], secrets: Mapping[str, str]) -> int:
    """Print a line for each finding; 78 goes before 69."""
    logs.silence()
    faults = set()
    for finding in findings(config.read(settings, secrets)):
        mark = "not ok" if finding.fault else "ok"
        click.echo(f"{mark:7} {finding.what:16} {finding.says}")
        faults.add(finding.fault)
    if "settings" in faults:
        return EXIT_CONFIG
    return EXIT_UNAVAILABLE if "manager" in faults else EXIT_OK


def _show_faults(error: ConfigError) -> None:
    for fault in error.faults:
        click.echo(f"agent-run: {fault}", err=True)


def _own_options() -> list[click.Parameter]:
    def option(*names: str, **attributes: Any) -> SettingOption:
        return SettingOption(list(names), **attributes)

    return [
        option(
            "--env-file",
            metavar="FILE",
            callback=load_env_file,
            is_eager=True,
            help="File with VARIABLE=value lines [default: .env, if there].",
        ),
        option("--debug", is_flag=True, help="The same as --log-level debug."),
        option("--dev", is_flag=True, help="Start a Manager for development here, and test."),
        option("--check", is_flag=True, help="Say what is well and what is not, and end."),
        option(
            "--exit-after-idle",
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            help="End with 0 after so long without a task.",
        ),
    ]


command = GroupedCommand(
    "agent-run",
    callback=_agent_run,
    params=[*_own_options(), *setting_options()],
    help=_agent_run.__doc__,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
click.version_option(__version__, prog_name="agent-run")(command)
