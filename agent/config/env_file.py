"""The env file: the variables that it sets, and the lines in it that are probably mistakes."""

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import StringIO

# How similar an unknown name must be to a setting's to be taken for it: MANAGR_URL is at 0.95.
SIMILAR = 0.8
MAX_CHARACTERS = 10**6


@dataclass(frozen=True)
class EnvFile:
    """An env file; without arguments, one that does not exist.

    `values` are the variables that it sets, secrets included, and `lines` their line numbers.
    `slips` has one sentence for each line that sets no setting but looks as if it should.
    `is_public` says that everybody can read it.
    """

    path: str = ""
    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    slips: list[str] = field(default_factory=list)
    is_public: bool = False

    def place(self, variable: str) -> str:
        """Where a variable is set, in words."""
        return f"{self.path} line {self.lines[variable]}"


def read(path: str, known: Iterable[str]) -> EnvFile:
    """Read an env file; `known` are the variables that the agent uses.

    It is decoded as Python decodes the environment, so that a path may have any bytes here too.
    Raises OSError, and ValueError for a file that is no text or too large.
    """
    with open(path, encoding=sys.getfilesystemencoding(), errors="surrogateescape") as file:
        mode = os.fstat(file.fileno()).st_mode
        content = file.read(MAX_CHARACTERS + 1)
    found = EnvFile(path, is_public=bool(mode & stat.S_IROTH))
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
            found.slips.append(f"{path} line {line} is ignored: it is not VARIABLE=value")
        elif binding.key and binding.value:
            found.values[binding.key] = binding.value
            found.lines[binding.key] = line
    found.slips.extend(_misspelt(found, list(known)))
    return found


def _misspelt(found: EnvFile, names: list[str]) -> Iterator[str]:
    from difflib import get_close_matches

    for variable in found.values:
        if variable not in names:
            for meant in get_close_matches(variable.upper(), names, n=1, cutoff=SIMILAR):
                yield f"{found.place(variable)}: {variable} is ignored: did you mean {meant}?"
