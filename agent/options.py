"""The command's options: one for each setting of `agent.config`, and help that groups them."""

from collections.abc import Mapping
from typing import Any

import click
from dotenv import dotenv_values

from agent import values
from agent.config import settings

DEFAULT_ENV_FILE = ".env"
THIS_RUN = "This run"


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
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records, col_max=46)


def seconds(ctx: click.Context, parameter: click.Parameter, given: str | None) -> float | None:
    """The callback of an option that takes seconds; raises click.BadParameter."""
    kind = values.seconds(0, 86400)
    try:
        return None if given is None else float(kind.read(given))
    except ValueError as error:
        raise click.BadParameter(f"{given!r}: must be {kind.accepted}", ctx, parameter) from error


def setting_options() -> list[click.Parameter]:
    """An option for each line of the configuration's table; values stay text, `config` checks."""
    options: list[click.Parameter] = []
    for field in settings():
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
            )
        )
    return options


def load_env_file(
    ctx: click.Context, parameter: click.Parameter, given: str | None
) -> Mapping[str, str]:
    """Make the env file's lines the defaults of the options; return them all, secrets included.

    Without the flag the file `.env` is read if there is one. Raises click.BadParameter when a
    file that was asked for is not there.
    """
    try:
        with open(given or DEFAULT_ENV_FILE, encoding="utf-8") as file:
            lines = dotenv_values(stream=file, interpolate=False)
    except FileNotFoundError as error:
        if given is None:
            return {}
        raise click.BadParameter(f"{given} is not there", ctx, parameter) from error
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{given or DEFAULT_ENV_FILE}: {error}", ctx, parameter) from error
    given_here = {name: value for name, value in lines.items() if value}
    ctx.default_map = {
        field.name: given_here[field.metadata["variable"]]
        for field in settings()
        if field.metadata["variable"] in given_here
    }
    return given_here
