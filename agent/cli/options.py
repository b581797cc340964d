"""The command's options: one for each setting, and a help text that groups them."""

import os
import re
from functools import partial

import click

from agent import SOURCE_TREE, __version__
from agent.config import types
from agent.config.settings import SETTINGS, Setting
from agent.errors import TaskError
from agent.process.spawn import capture_output

GIT_SECONDS = 5.0
THIS_RUN = "This run"
# A shell completes the values of the variables that end so, as paths.
PATHS = ("_FILE", "_DIR", "_PATH")


class GroupedCommand(click.Command):
    """A command whose help lists the options by group."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups, each under its heading, in the order of the options."""
        groups_of = {setting.name: setting.group for setting in SETTINGS}
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                group = groups_of.get(parameter.name or "", THIS_RUN)
                groups.setdefault(group, []).append(record)
        formatter.write_paragraph()
        # click's own sections have empty lines between them, too many for one screen.
        for group, records in groups.items():
            formatter.write_heading(group)
            formatter.indent()
            formatter.write_dl(records, col_max=46)
            formatter.dedent()


def _seconds(ctx: click.Context, parameter: click.Parameter, given: str | None) -> float | None:
    kind = types.seconds(0, 86400)
    try:
        return None if given is None else float(kind.parse(given))
    except ValueError as error:
        raise click.BadParameter(f"{given!r}: must be {kind.accepted}", ctx, parameter) from error


def _show_version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
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
        commit = capture_output(asked, GIT_SECONDS).strip()
    except TaskError:
        return ""
    return f"+g{commit}" if re.fullmatch("[0-9a-f]+", commit) else ""


def _option_of(setting: Setting) -> click.Option:
    """Its value stays a text, which `agent.config` checks."""
    choices = setting.kind.choices
    words = f": {setting.kind.accepted}" if choices else ""
    default = f" [{setting.default}]" if setting.default else ""
    return click.Option(
        [setting.flag],
        metavar=setting.variable,
        help=f"{setting.about}{words}{default}.",
        type=click.Path() if setting.variable.endswith(PATHS) else click.STRING,
        shell_complete=partial(_complete, choices) if choices else None,
    )


def _complete(
    words: tuple[str, ...], ctx: click.Context, parameter: click.Parameter, begun: str
) -> list[str]:
    return [word for word in words if word.startswith(begun)]


_flag = partial(click.Option, is_flag=True)

# The first ones are for one run, and so have no variable.
OPTIONS: list[click.Parameter] = [
    click.Option(
        ["--env-file"],
        metavar="FILE",
        type=click.Path(),
        help="Read settings from this file [.env].",
    ),
    _flag(["--debug"], help="The same as --log-level debug."),
    _flag(["--dev"], help="Run a demo: a local Manager and a loopback test."),
    _flag(["--check"], help="Check the configuration and the Manager, then exit."),
    _flag(["--try-key"], help="With --check: register, to try the key."),
    click.Option(
        ["--exit-after-idle"],
        callback=_seconds,
        metavar="S",
        help="Exit after S seconds without a task.",
    ),
    _flag(
        ["--version"],
        is_eager=True,
        expose_value=False,
        callback=_show_version,
        help="Show the version and exit.",
    ),
    *map(_option_of, SETTINGS),
]
