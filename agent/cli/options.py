"""The command's options: one for each setting, and help that groups them."""

import os
import re
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from agent import SOURCE_TREE, __version__
from agent.config import env_file, types
from agent.config.env_file import EnvFile
from agent.config.key import SECRETS
from agent.config.settings import setting_fields
from agent.errors import ChildError
from agent.process.child import text_output

DEFAULT_ENV_FILE = ".env"
_GIT_SECONDS = 5.0
THIS_RUN = "This run"
_Completion = Callable[[click.Context, click.Parameter, str], list[str]]
# What the variables whose values are paths end with; a shell completes those.
PATHS = ("_FILE", "_DIR", "_PATH")


class SettingOption(click.Option):
    """An option that shows up in the help below `group`."""

    def __init__(self, *args: Any, group: str = THIS_RUN, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help lists the options under their groups' names."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group, in the order of the options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record:
                group = getattr(parameter, "group", THIS_RUN)
                groups.setdefault(group, []).append(record)
        formatter.write_paragraph()
        # Not as sections: the empty lines between them would take it off the screen.
        for group, records in groups.items():
            formatter.write_heading(group)
            formatter.indent()
            formatter.write_dl(records, col_max=46)
            formatter.dedent()


def _seconds(ctx: click.Context, parameter: click.Parameter, given: str | None) -> float | None:
    """The callback of an option that takes seconds; raises click.BadParameter."""
    kind = types.seconds(0, 86400)
    try:
        return None if given is None else float(kind.read(given))
    except ValueError as error:
        raise click.BadParameter(f"{given!r}: must be {kind.accepted}", ctx, parameter) from error


def own_options() -> list[click.Parameter]:
    """The options for one run, which have no variable."""

    def option(*names: str, **attributes: Any) -> SettingOption:
        return SettingOption(list(names), **attributes)

    return [
        option(
            "--env-file",
            metavar="FILE",
            type=click.Path(),
            callback=_load_env_file,
            is_eager=True,
            help="File of VARIABLE=value lines [.env].",
        ),
        option("--debug", is_flag=True, help="Log each request: --log-level debug."),
        option("--dev", is_flag=True, help="Try it: with a Manager of its own, and a test."),
        option("--check", is_flag=True, help="Say what is well and what is not."),
        option(
            "--exit-after-idle",
            callback=_seconds,
            metavar="SECONDS",
            help="End after so long without a task.",
        ),
        option(
            "--version",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        ),
    ]


def setting_options() -> list[click.Parameter]:
    """An option for each line of the configuration's table; values stay text, `config` checks."""
    options: list[click.Parameter] = []
    for field in setting_fields():
        data = field.metadata
        default = f" [{data['default']}]" if data["default"] else ""
        options.append(
            SettingOption(
                [f"--{field.name.replace('_', '-')}"],
                envvar=data["variable"],
                show_envvar=False,
                metavar=data["variable"],
                help=f"{data['about']}{default}",
                group=data["group"],
                type=click.Path() if data["variable"].endswith(PATHS) else click.STRING,
                shell_complete=_one_of(data["kind"].words),
            )
        )
    return options


def origins(ctx: click.Context) -> dict[str, str]:
    """Where each setting was given, in words, by field name."""
    found = {}
    for field in setting_fields():
        variable = field.metadata["variable"]
        source = ctx.get_parameter_source(field.name)
        if source is ParameterSource.COMMANDLINE:
            found[field.name] = f"--{field.name.replace('_', '-')}"
        elif source is ParameterSource.ENVIRONMENT:
            found[field.name] = "in the environment"
        elif source is ParameterSource.DEFAULT_MAP:
            found[field.name] = ctx.params["env_file"].place(variable)
    return found


def _one_of(words: tuple[str, ...]) -> _Completion | None:
    """What completes one of the words; None without words."""

    def complete(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
        return [word for word in words if word.startswith(begun)]

    return complete if words else None


def _show_version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    """Print the version, with the commit of a git tree, and exit."""
    if asked and not ctx.resilient_parsing:
        click.echo(f"agent-run, version {__version__}{_commit()}")
        ctx.exit()


def _commit() -> str:
    """`+g` and the short hash of the source tree's commit; empty without a tree, .git or git."""
    directory = os.path.join(SOURCE_TREE, ".git")
    if not SOURCE_TREE or not os.path.exists(directory):
        return ""
    try:
        asked = ["git", f"--git-dir={directory}", "rev-parse", "--short", "HEAD"]
        commit = text_output(asked, _GIT_SECONDS).strip()
    except ChildError:
        return ""
    return f"+g{commit}" if re.fullmatch("[0-9a-f]+", commit) else ""


def _load_env_file(ctx: click.Context, parameter: click.Parameter, given: str | None) -> EnvFile:
    """Make the env file's lines the defaults of the options, and return it.

    Without the flag the file `.env` is read if there is one. Raises click.BadParameter when a
    file that was asked for is not there.
    """
    variables = {field.metadata["variable"]: field.name for field in setting_fields()}
    try:
        file = env_file.read(given or DEFAULT_ENV_FILE, [*variables, *SECRETS])
    except FileNotFoundError as error:
        if given is None:
            return EnvFile()
        raise click.BadParameter(f"{given} is not there", ctx, parameter) from error
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{given or DEFAULT_ENV_FILE}: {error}", ctx, parameter) from error
    ctx.default_map = {
        name: file.values[variable]
        for variable, name in variables.items()
        if variable in file.values
    }
    return file
