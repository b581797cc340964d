"""Where a secret could be found that is nowhere else in the world."""

from http.client import HTTPConnection
from pathlib import Path


def holders(directory: Path, canary: str) -> list[str]:
    """The files below a directory whose name or content has the canary."""
    return [
        str(path.relative_to(directory))
        for path in sorted(directory.rglob("*"))
        if canary in str(path) or (path.is_file() and canary.encode() in path.read_bytes())
    ]


def of_process(pid: int, name: str) -> bytes:
    """A process's `cmdline` or `environ`."""
    return Path(f"/proc/{pid}/{name}").read_bytes()


def pages_of(address: str, *paths: str) -> str:
    """What is shown at these paths."""
    shown = []
    for path in paths:
        page = HTTPConnection(address)
        page.request("GET", path, headers={"Accept": "text/html"})
        shown.append(page.getresponse().read().decode())
        page.close()
    return "".join(shown)
