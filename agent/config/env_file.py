"""The env file: the variables that it sets, and what in it or the environment is a mistake."""

import os
import stat
import sys
from collections.abc import Collection, Iterator, Mapping
from io import StringIO

from agent.config.key import PLACEHOLDER_KEY
from agent.errors import ConfigError

DEFAULT_ENV_FILE = ".env"
# How many letters of a setting's name may be wrong, missing, too many or swapped.
WRONG_LETTERS = 2
# Names so near to a setting's that other programs are known to use.
OTHERS = (
    "AGENT_HOME AGENT_NODE APP_VERSION LOCK_FILE LOG_FILTER LOG_SIZE SITE_DIR STATIC_DIR".split()
)
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


def read_env_file(given: str | None, known: Collection[str]) -> EnvFile:
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
        reason = getattr(error, "strerror", error)
        raise ConfigError(f"--env-file {file.path}: {reason}") from error
    file.slips.extend(misspelt(file, known))
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


def misspelt(place: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """A sentence for each variable whose name is nearly that of a known one."""
    for variable in place:
        name = variable.upper()
        if not place[variable] or variable in known or name in OTHERS:
            continue
        # The first letter is rarely wrong: EVENT_NAME and PIP_VERSION are what others use.
        begun = [each for each in known if each[0] == name[:1]]
        # What differs more in length has more wrong letters: of hundreds, few are compared at all.
        near = [each for each in begun if abs(len(each) - len(name)) <= WRONG_LETTERS]
        found = (each for n in range(WRONG_LETTERS + 1) for each in near if _is_near(name, each, n))
        if meant := next(found, None):
            yield f"{place_of(variable, place)}: {variable} is ignored: did you mean {meant}?"


def _is_near(one: str, other: str, letters: int) -> bool:
    """Whether so many letters that are wrong, missing, too many or swapped make one the other."""
    shared = len(os.path.commonprefix([one, other]))
    one, other = one[shared:], other[shared:]
    if not letters or not one or not other:
        return len(one) + len(other) <= letters
    steps = [(1, 1), (1, 0), (0, 1)] + [(2, 2)] * (one[:2] == other[1::-1])
    return any(_is_near(one[here:], other[there:], letters - 1) for here, there in steps)
