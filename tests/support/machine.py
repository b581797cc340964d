"""A Debian that is booted in a container, and what it needs: a seed for cloud-init, and wheels."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import gevent
import psutil
from gevent import subprocess

from agent import __version__
from tests.support.command import Ended
from tests.support.harness import ROOT, until
from tests.support.needs import need
from tests.support.network import Network

# The roots of machines that never ran.
TEMPLATES = sorted((ROOT / ".venv/machines").glob("*"))
# Where the container finds a release, and what the release calls its wheels for this processor.
RELEASE = "/srv/release"
WHEELHOUSE = f"iperf-agent-{__version__}-wheels-{platform.machine()}"
# This version under the number of one that is still to come.
NEXT = "99.0"
# Seconds for a boot, an installation, or a restart by the watchdog, on a busy computer.
LONG = 180.0
PIP = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check"]
_SEED = "var/lib/cloud/seed/nocloud"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the image of a cloud has settled: its language, where packages come from, and who cares for
# the network.
_IMAGE = """\
locale: C.UTF-8
apt: {preserve_sources_list: true}
datasource_list: [NoCloud]
network: {config: disabled}
"""


def need_machines() -> None:
    """Skip a module's tests where no machine can be booted."""
    need(os.geteuid() == 0, "only root can boot a machine")
    need(shutil.which("systemd-nspawn"), "systemd-nspawn is not installed")
    need(TEMPLATES, "there is no root of a machine: make test-deployment makes some")


class Machine:
    """A machine with a disk of its own, on the network as the host `agent`; needs root."""

    def __init__(self, template: Path, directory: Path, release: Path, network: Network) -> None:
        """Copy the disk from `template`, the root of a Debian that never ran."""
        self._disk = directory / "disk"
        self._console = directory / "console.log"
        self._release = release
        self._network = network
        self._nspawn: subprocess.Popen | None = None
        self._init = 0
        # Python's own copy would follow or lose what only a disk has.
        subprocess.run(["cp", "-a", "--reflink=auto", template, self._disk], check=True)
        self.write("etc/cloud/cloud.cfg.d/99-image.cfg", _IMAGE)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the machine's; `path` is relative to its root."""
        file = self._disk / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def empty(self, path: str) -> None:
        """Remove what is in a directory of the machine's."""
        for entry in (self._disk / path).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def seed(self, instance: str, user_data: str, hostname: str = "") -> None:
        """Say what cloud-init is to find at the next boot; the instance is the host's name, too."""
        names = f"instance-id: {instance}\nlocal-hostname: {hostname or instance}\n"
        self.write(f"{_SEED}/meta-data", names)
        self.write(f"{_SEED}/user-data", user_data)

    def start(self) -> None:
        """Boot it; returns once its systemd takes orders."""
        argv = [
            # Tests that are killed leave no machine behind: at TERM nspawn shuts it down.
            *("setpriv", "--pdeathsig", "TERM", "systemd-nspawn", "--quiet", "--boot"),
            *("--directory", self._disk, "--register=no", "--keep-unit", "--link-journal=no"),
            *("--resolv-conf=off", "--timezone=off", f"--bind-ro={self._release}:{RELEASE}"),
            "--network-namespace-path=/proc/self/ns/net",
        ]
        if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
            argv.append("systemd.unified_cgroup_hierarchy=0")
        with self._network.inside("agent"), open(self._console, "ab") as console:
            self._nspawn = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,  # type: ignore[attr-defined]
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        until(self._is_up, LONG)

    def stop(self) -> None:
        """Shut it down in good order, as a host's power button does."""
        if self._nspawn and self._nspawn.poll() is None:
            self._nspawn.terminate()
            self._nspawn.wait(timeout=LONG)

    def kill(self) -> None:
        """End it the hard way, and remove its disk."""
        if self._nspawn and self._nspawn.poll() is None:
            # The machine outlives its nspawn, but not its own first process.
            inits = psutil.Process(self._nspawn.pid).children()
            for init in inits:
                init.kill()
            self._nspawn.kill()
            self._nspawn.wait()
            assert not psutil.wait_procs(inits, timeout=LONG)[1]
        subprocess.run(["rm", "-rf", self._disk], check=False)

    def run(self, *argv: str) -> Ended:
        """Run a command in it and wait for its end."""
        return self.end_of(self.begin(*argv))

    def begin(self, *argv: str) -> subprocess.Popen:
        """Start a command in it."""
        nsenter = ["nsenter", "--target", str(self._init), "--all", "env", "-i", f"PATH={_PATH}"]
        return subprocess.Popen(
            [*nsenter, *argv],
            stdin=subprocess.DEVNULL,  # type: ignore[attr-defined]
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end_of(self, command: subprocess.Popen) -> Ended:
        """Wait for the end of what was begun."""
        try:
            output, errors = command.communicate(timeout=LONG)
        except subprocess.TimeoutExpired:
            command.kill()
            raise
        return Ended(command.wait(), output, errors)

    def output(self, *argv: str) -> str:
        """What a command prints; fails the test when the command fails."""
        done = self.run(*argv)
        assert done.code == 0, (argv, done)
        return done.output.strip()

    def state(self, unit: str, name: str) -> str:
        """A property of a unit, such as ActiveState."""
        return self.output("systemctl", "show", "--value", f"--property={name}", unit)

    def main_pid(self, unit: str) -> str:
        """The id of a unit's main process; fails the test when it has none."""
        pid = self.state(unit, "MainPID")
        assert pid != "0", self.run("systemctl", "status", unit).output
        return pid

    def until(self, condition: Callable[[], object]) -> None:
        """Look every half second until `condition()` holds; fails the test if it never does."""
        with gevent.Timeout(LONG, AssertionError("it never came about")):
            while not condition():
                gevent.sleep(0.5)

    def _is_up(self) -> bool:
        assert self._nspawn
        if self._nspawn.poll() is not None:
            raise AssertionError(self._console.read_text(errors="replace"))
        children = psutil.Process(self._nspawn.pid).children()
        self._init = children[0].pid if children else 0
        return bool(children) and self.run("systemctl", "list-jobs").code == 0


def constraints(version: str) -> str:
    """The name of the file that pins what a version needs."""
    return f"iperf-agent-{version}-constraints.txt"


def released(url: str, version: str) -> list[str]:
    """The lines that have pip install a version by its URL."""
    wheel = f"{url}/iperf_orchestrator_agent-{version}-py3-none-any.whl"
    return [wheel, f"--constraint {url}/{constraints(version)}"]


def build_wheel(directory: Path, version: str) -> None:
    """Add the wheel of this checkout as it would be with another version."""
    with TemporaryDirectory() as name:
        source = Path(name)
        for part in ("agent", "deployment"):
            shutil.copytree(
                ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        for part in ("README.md", "LICENSE"):
            shutil.copy(ROOT / part, source)
        project = (ROOT / "pyproject.toml").read_text()
        other = project.replace(f'\nversion = "{__version__}"\n', f'\nversion = "{version}"\n')
        (source / "pyproject.toml").write_text(other)
        argv = [*PIP, "wheel", "--no-deps", "--wheel-dir", directory, source]
        subprocess.run(argv, check=True)
