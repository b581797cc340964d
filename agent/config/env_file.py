"""The env file: the variables that it sets, and the lines in it that are probably mistakes."""

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO

from agent.config.key import PLACEHOLDER_KEY
from agent.errors import ConfigError

DEFAULT_ENV_FILE = ".env"
# How similar an unknown name must be to a setting's to be taken for it: MANAGR_URL is at 0.95.
SIMILAR = 0.8
MAX_CHARACTERS = 10**6


class EnvFile(dict[str, str]):
    """The variables that an env file sets, secrets included, and the numbers of their `lines`.

    `slips` has one sentence for each line that sets no setting but looks as if it should.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.lines: dict[str, int] = {}
        self.slips: list[str] = []


def place_of(variable: str, place: Mapping[str, str]) -> str:
    """Where a variable is set, in words: in an env file, or else in the environment."""
    if isinstance(place, EnvFile):
        return f"{place.path} line {place.lines[variable]}"
    return "in the environment"


def read_env_file(given: str | None, known: Iterable[str]) -> EnvFile:
    """Read the env file that was asked for, or else `.env` if it exists. Raises ConfigError.

    `known` are the variables that the agent uses.
    """
    file = EnvFile(given or DEFAULT_ENV_FILE)
    try:
        if given is None:
            _check_found(file.path)
        is_public = _read(file)
    except FileNotFoundError as error:
        if given is None:
            return file
        raise ConfigError(f"--env-file {file.path} does not exist") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"--env-file {file.path}: {error}") from error
    file.slips.extend(_misspelt(file, list(known)))
    # Not refused, as a key file is: `cp env.example .env` makes such a file.
    if is_public and file.get("AGENT_KEY", PLACEHOLDER_KEY) != PLACEHOLDER_KEY:
        words = "has AGENT_KEY in it, and everybody can read it: chmod 0600 it"
        file.slips.append(f"{file.path} {words}")
    return file


def _check_found(path: str) -> None:
    """Raise ValueError for a file that nobody asked for and that is not to be read."""
    # Another user may have put it into the working directory, such as /tmp.
    if os.lstat(path).st_uid not in (os.geteuid(), 0) and os.stat(".").st_mode & stat.S_IWOTH:
        words = "it belongs to another user, and all can write here: name it with --env-file"
        raise ValueError(f"{words} if you trust it")
    # A pipe would be waited for. One that is asked for is a shell's <(...).
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is no regular file")


def _read(file: EnvFile) -> bool:
    """Fill it, and return whether everybody can read it."""
    # Decoded as Python decodes the environment, so that a path may have any bytes here too.
    with open(file.path, encoding=sys.getfilesystemencoding(), errors="surrogateescape") as opened:
        is_public = bool(os.fstat(opened.fileno()).st_mode & stat.S_IROTH)
        content = opened.read(MAX_CHARACTERS + 1)
    if len(content) > MAX_CHARACTERS:
        raise ValueError(f"it has more than {MAX_CHARACTERS} characters")
    if "\0" in content:
        raise ValueError("it is no text: save it in UTF-8")
    # Imported here to keep an agent without an env file small.
    from dotenv.parser import parse_stream

    for binding in parse_stream(StringIO(content)):
        # The parser counts the empty lines before a binding as its own.
        text = binding.original.string
        line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
        if binding.error:
            file.slips.append(f"{file.path} line {line} is ignored: it is not VARIABLE=value")
        elif binding.key and binding.value:
            file[binding.key] = binding.value
            file.lines[binding.key] = line
    return is_public


def _misspelt(file: EnvFile, known: list[str]) -> Iterator[str]:
    # Imported here for the same reason.
    from difflib import get_close_matches

    for variable in file:
        if variable not in known:
            for meant in get_close_matches(variable.upper(), known, n=1, cutoff=SIMILAR):
                yield f"{place_of(variable, file)}: {variable} is ignored: did you mean {meant}?"
