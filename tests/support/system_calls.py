"""The system calls of a real agent in the order in which they began and ended, by strace."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.harness import AGENT

# What writes, what makes writes lasting, what names files, and what the Manager sees.
_CALLS = "write,fsync,fdatasync,/^rename,/^link,/^unlink,sendto,recvfrom"
# A call that others come in between is on two lines, its arguments on the first.
_LINE = re.compile(
    r"(?P<thread>\d+) +(<\.\.\. \w+ resumed>(?P<rest>.*)|(?P<name>\w+)\((?P<all>.*))"
)
_UNFINISHED = " <unfinished ...>"


@dataclass
class Call:
    """A call; `began` and `ended` are places in the order of all beginnings and ends.

    `text` is what strace says of its arguments and its result, without escapes of quotes.
    """

    name: str
    text: str
    began: int
    ended: int

    @property
    def paths(self) -> list[str]:
        """The files that it names, or the one that is open with its descriptor."""
        if self.name.startswith(("rename", "link", "unlink")):
            return re.findall('"(.*?)"', self.text)
        return re.findall(r"^\d+<(.*?)>", self.text)

    @property
    def succeeded(self) -> bool:
        """Whether it returned something else than -1."""
        return " = -1 " not in self.text


def traced(into: Path) -> tuple[str, ...]:
    """The program of an agent whose calls `calls_in` finds in the file."""
    # The agent stays the child of the test, and strace is the agent's.
    how = ["-D", "-f", "--seccomp-bpf", "-y", "-s", "10000", "-e", f"trace={_CALLS}"]
    return ("strace", *how, "-o", str(into), *AGENT)


def calls_in(file: Path) -> list[Call]:
    """The calls that succeeded, in the order in which they began."""
    calls = []
    unfinished: dict[str, Call] = {}
    for place, line in enumerate(file.read_text(errors="replace").splitlines()):
        # A signal or an end is no call.
        if not (found := _LINE.match(line)):
            continue
        if found["name"]:
            call = Call(found["name"], found["all"].replace('\\"', '"'), place, place)
            calls.append(call)
            if call.text.endswith(_UNFINISHED):
                call.text = call.text.removesuffix(_UNFINISHED)
                unfinished[found["thread"]] = call
        elif call := unfinished.pop(found["thread"]):
            call.text, call.ended = call.text + found["rest"], place
    return [call for call in calls if call.succeeded]
