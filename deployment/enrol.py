"""Creates agents at a Manager, and writes a key file for each, and user data if you want it.

Run it with the Python of an installed agent; docs/deployment.md has an example. A key is on the
disk before the Manager has it, and no key file is ever replaced or removed: after a crash at any
moment, the same command goes on.
"""

import fcntl
import os
import secrets
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import click
from manager_admin import Manager, Record, Refused, show
from user_data import UserData

from agent.config.key import read_key_file
from agent.config.types import NAME, URL
from agent.errors import ConfigError
from agent.files import write_whole
from agent.host import is_loopback

REMEDY = (
    "bring that key here, choose another name, or give --rekey: then the Manager gets the key that"
    " is here or a new one, and refuses an agent that still has the old one"
)
# Some editors begin a text with a mark.
TEXT = click.File(encoding="utf-8-sig")


class Enrolment:
    """Enrols names at a Manager. The keys are in a directory of one's own."""

    def __init__(
        self, manager: Manager, keys: Path, template: UserData | None, rekey: bool
    ) -> None:
        """Ask the Manager whom it knows."""
        self._manager, self._keys = manager, keys
        self._template, self._rekey = template, rekey
        self._known = manager.agents()

    def enrol(self, name: str) -> str:
        """What was done for that name; raises Refused, ClickException and OSError."""
        path, record = self._keys / f"{name}.key", self._known.get(name)
        if record and not path.exists() and not self._rekey:
            raise Refused(f"it is at the Manager, and {path} is not here: {REMEDY}")
        if not path.exists():
            write_whole(path, [f"{secrets.token_urlsafe(32)}\n".encode()])
        try:
            key = read_key_file(path)
        except ConfigError as error:
            raise Refused(str(error)) from None
        done = self._tell(name, key, record)
        if self._template:
            write_whole(self._keys / f"{name}.yaml", [self._template.make(name, key)])
        return done

    def _tell(self, name: str, key: str, record: Record | None) -> str:
        if record is None:
            self._manager.create(name, key)
            return "created"
        # A Manager may keep the keys to itself.
        if record.registration_key == key or not (record.registration_key or self._rekey):
            return "kept"
        if not self._rekey:
            raise Refused(f"its key at the Manager is not the one that is here: {REMEDY}")
        self._manager.change_key(record.id, key)
        return "re-keyed"


def read_names(lines: Iterable[str]) -> list[str]:
    """The names, one a line and a comment after #; raises ClickException with all faults."""
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    # Some disks do not tell upper case from lower case.
    counts = Counter(name.lower() for name in names)
    faults = [f"{each!r} is given {count} times" for each, count in counts.items() if count > 1]
    faults += [f"{name!r} must be {NAME.accepted}" for name in names if not NAME.accepts(name)]
    faults += [] if names else ["there are no names"]
    if faults:
        raise click.ClickException("\n  ".join(["nothing was done:", *faults]))
    return names


def open_directory(path: Path) -> None:
    """Make the directory if need be, and let no other run into it; raises ClickException."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_mode & 0o077 or found.st_uid != os.geteuid():
        raise click.ClickException(f"others may look into {path}: make it yours, and chmod 0700 it")
    try:
        # It stays open, and locked.
        fcntl.flock(os.open(path, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise click.ClickException(f"another run uses {path}: wait for its end") from None


def parse_url(*given: Any) -> Any:
    """The Manager's URL, as the agent takes it; raises click's error without repeating it."""
    try:
        return URL.parse(given[-1])
    except ValueError:
        raise click.BadParameter(f"must be {URL.accepted}") from None


@click.command()
@click.argument("names", type=click.File(encoding="utf-8-sig", errors="replace"), default="-")
@click.option(
    "--manager-url", envvar="MANAGER_URL", show_envvar=True, required=True, callback=parse_url
)
@click.option("--user", default="admin", show_default=True, help="Who creates the agents.")
@click.option(
    "--password-file",
    type=click.File(encoding="utf-8-sig", errors="surrogateescape"),
    help="Has the user's password. Without it: ADMIN_PASSWORD in the environment, or a question.",
)
@click.option(
    "--manager-ca-file",
    envvar="MANAGER_CA_FILE",
    show_envvar=True,
    type=click.Path(exists=True, dir_okay=False),
    help="The CA of the Manager's certificate [the system's].",
)
@click.option(
    "--keys",
    type=click.Path(file_okay=False, path_type=Path),
    default="keys",
    show_default=True,
    help="The directory for NAME.key and NAME.yaml.",
)
@click.option(
    "--user-data",
    type=TEXT,
    metavar="TEMPLATE",
    help="Write user data, too, of deployment/cloud-init.yaml or a copy of it.",
)
@click.option("--requirements", type=TEXT, help="The lines for pip in the user data [TEMPLATE's].")
@click.option("--rekey", is_flag=True, help="Replace keys at the Manager that are not here.")
def main(
    names: TextIO,
    manager_url: str,
    user: str,
    password_file: TextIO | None,
    manager_ca_file: str | None,
    keys: Path,
    user_data: TextIO | None,
    requirements: TextIO | None,
    rekey: bool,
) -> None:
    """Create an agent at the Manager for each of the NAMES, and write its key here.

    NAMES is a file, or - for stdin: one name a line, comments after #. An agent that is at the
    Manager with the key that is here stays as it is, so this can run again at any time. It ends
    with a table, and with 1 unless all names are enrolled.
    """
    os.umask(0o077)
    wanted = read_names(names)
    if manager_url.startswith("http:") and not is_loopback(manager_url):
        click.echo("Warning: the password and the keys are sent over plain http.", err=True)
    try:
        template = UserData(user_data, requirements, manager_url) if user_data else None
        password = password_file.read() if password_file else os.environ.get("ADMIN_PASSWORD")
        password = password or click.prompt(f"Password of {user}", hide_input=True, err=True)
        open_directory(keys)
        manager = Manager(manager_url, manager_ca_file)
        manager.log_in(user, password.rstrip("\n"))
        done, refusals = enrol_all(Enrolment(manager, keys, template, rekey), wanted)
    except UnicodeDecodeError:
        raise click.ClickException("a template, and lines for pip, must be in UTF-8") from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or keys}: {error.strerror}") from None
    show(manager.agents(), done)
    if refusals:
        raise click.ClickException("\n  ".join(["not enrolled:", *refusals]))


def enrol_all(enrolment: Enrolment, names: list[str]) -> tuple[dict[str, str], list[str]]:
    """What was done for each name, and what was refused; raises ClickException and OSError."""
    done, refusals = dict[str, str](), []
    try:
        for name in names:
            try:
                done[name] = enrolment.enrol(name)
            except Refused as error:
                done[name] = "refused"
                refusals.append(f"{name}: {error.message}")
    except (click.ClickException, OSError, KeyboardInterrupt):
        words = f"{len(done) - len(refusals)} of {len(names)} names are enrolled"
        click.echo(f"{words}: run the same command again for the rest.", err=True)
        raise
    return done, refusals


if __name__ == "__main__":
    main()
