"""The env file: what it sets, in which line, and what in it is likely to be a slip."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dotenv.parser import Binding, parse_stream

# How much of a name must be that of a setting to be taken for it: MANAGR_URL is at 0.95.
ALIKE = 0.8


@dataclass(frozen=True)
class EnvFile:
    """An env file, by default one that is not there.

    `values` are the variables that it sets to something, secrets included, `lines` the number of
    the line in which each stands, and `slips` one sentence for each line that sets nothing of
    ours and looks as if it should.
    """

    path: str = ""
    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    slips: list[str] = field(default_factory=list)

    def place(self, variable: str) -> str:
        """Where a variable stands, in words."""
        return f"{self.path} line {self.lines[variable]}"


def read(path: str, known: Iterable[str]) -> EnvFile:
    """Read an env file; `known` are the variables that mean something.

    Raises OSError and UnicodeDecodeError.
    """
    found = EnvFile(path)
    with open(path, encoding="utf-8") as file:
        for binding in parse_stream(file):
            line = _line(binding)
            if binding.error:
                found.slips.append(f"{path} line {line} is ignored: it is not VARIABLE=value")
            elif binding.key and binding.value:
                found.values[binding.key] = binding.value
                found.lines[binding.key] = line
    found.slips.extend(_misspelt(found, list(known)))
    return found


def _misspelt(found: EnvFile, names: list[str]) -> Iterator[str]:
    # Only with an env file: an idle agent is smaller without it.
    from difflib import get_close_matches

    for variable in found.values:
        if variable not in names:
            for meant in get_close_matches(variable.upper(), names, n=1, cutoff=ALIKE):
                yield f"{found.place(variable)}: {variable} is ignored: did you mean {meant}?"


def _line(binding: Binding) -> int:
    """Where the binding itself stands: the parser counts from the empty lines before it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
