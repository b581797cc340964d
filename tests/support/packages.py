"""A host's directory of wheels and packages of Debian, served over HTTP as an index would be."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gevent import subprocess

from tests.support.machine import Machine
from tests.support.network import MANAGER, Network

_PORT = 8001
URL = f"http://{MANAGER}:{_PORT}"
# The lines that have pip take wheels from there, and from nowhere else.
PIP_LINES = ("--no-index", f"--find-links {URL}", f"--trusted-host {MANAGER}")


@contextmanager
def served(directory: Path, network: Network) -> Iterator[None]:
    """Serve the directory at URL, on the Manager's host, until the block's end."""
    argv = [sys.executable, "-m", "http.server", f"--bind={MANAGER}", f"--directory={directory}"]
    with network.inside("manager"):
        server = subprocess.Popen(
            [*argv, str(_PORT)],
            stdout=subprocess.DEVNULL,  # type: ignore[attr-defined]
            stderr=subprocess.DEVNULL,  # type: ignore[attr-defined]
        )
    try:
        yield
    finally:
        server.kill()
        server.wait()


def publish_debs(template: Path, directory: Path) -> None:
    """Fill a directory with what is in the cache of a root's apt, and an index of it."""
    directory.mkdir()
    entries = []
    for number, deb in enumerate(sorted((template / "var/cache/apt/archives").glob("*.deb"))):
        # Their own names have signs that a URL would have to quote.
        (directory / f"{number}.deb").symlink_to(deb)
        fields = subprocess.run(["dpkg-deb", "--field", deb], check=True, stdout=subprocess.PIPE)
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        place = f"Filename: ./{number}.deb\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
        entries.append(fields.stdout.decode() + place)
    (directory / "Packages").write_text("\n".join(entries))


def take_debs_from_there(machine: Machine, path: str) -> None:
    """Let a machine that is off have no packages but those below URL/path."""
    machine.write("etc/apt/sources.list", f"deb [trusted=yes] {URL}/{path} ./\n")
    machine.empty("var/cache/apt/archives")
