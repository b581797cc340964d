"""What an installed iperf3 can do, read from its `--version` and `--help`."""

import re

from msgspec import Struct

from agent.errors import ErrorClass, TaskError
from agent.iperf3.failures import told_lines

# "iperf 3.12 (cJSON 1.7.15)", "iperf 3.19.1 ..."; a build from git says "iperf 3.9+".
# iperf 2 says "iperf version 2.1.8 ...", which does not match. The loader may write before it.
_VERSION = re.compile(r"^iperf (([0-9]+(?:\.[0-9]+)+)\S*)", re.MULTILINE)
# "  -b, --bitrate #[KMG][/#]  ...", "  --bidir  ...": the option at the start of a line, not one
# in a description.
_OPTION = re.compile(r"^\s+(?:(-\w), )?(--[a-z0-9][a-z0-9-]*)", re.MULTILINE)
# Options of every run, whatever its payload.
_NEEDED = frozenset(
    "--server --client --port --json --parallel --time --interval --connect-timeout".split()
)
# From this release on, each stream has a thread of its own, and the first one looks only at the end
# of each interval whether a number of bytes is out.
THREADED = (3, 16)
# From this release on, the receiver's count of lost datagrams is another one.
OTHER_COUNT = (3, 13)
# The releases that take no heed of `-b` where it has a burst.
UNPACED = ((3, 9), (3, 18))
# 3.19.1 was the first that did what it says.
_UNSOUND_IN_3_19 = "--skip-rx-copy"


class Features(Struct, frozen=True):
    """One installed iperf3: its path, and its version as printed.

    `options` has the word for each long name of an option: the short form, if there is one.
    """

    path: str
    version: str
    options: dict[str, str]

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers, so that (3, 9) < (3, 12) < (3, 19, 1)."""
        return release_of(self.version)


def release_of(version: str) -> tuple[int, ...]:
    """The first version in a text as numbers; empty if there is none."""
    numbers = re.search(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def parse_features(path: str, version_text: str, help_text: str) -> Features:
    """Read what `iperf3 --version` and `iperf3 --help` printed.

    Raises TaskError(`iperf3_missing`) for another program, and for an iperf3 without the options
    of every run.
    """
    match = _VERSION.search(version_text)
    if match is None or int(match[2].split(".")[0]) < 3:
        said = (told_lines(version_text) or ["nothing"])[0][:80]
        fault = f"{path} is not iperf3: its --version says {said!r}"
    else:
        options = {name: short or name for short, name in _OPTION.findall(help_text)}
        if match[2] == "3.19":
            options.pop(_UNSOUND_IN_3_19, None)
        features = Features(path, match[1], options)
        missing = sorted(_NEEDED - options.keys())
        if not missing:
            return features
        fault = f"iperf3 {features.version} at {path} has no {', '.join(missing)}"
    advice = "install iperf3 3.9 or newer, or set IPERF3_PATH to where it is"
    raise TaskError(ErrorClass.IPERF3_MISSING, f"{fault}; {advice}")
