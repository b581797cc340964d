"""Builds the real Dockerfile with buildah, and runs what came of it with podman.

The base image cannot be had everywhere: a Debian root of the same release, with Debian's Python,
stands in for it under its name. Its Python is at /usr/bin and not at /usr/local/bin; its pip is in
/usr/local, where it may be removed.
"""

import os
import re
import shutil
import sys
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gevent import subprocess

from tests.support.harness import ROOT

PROGRAMS = ("buildah", "podman", "crun", "debootstrap", "ip", "setpriv", "unshare")
DOCKERFILE = ROOT / "Dockerfile"
TRIAL = Path(__file__).with_name("trial.sh")
MIRROR = Path(__file__).with_name("mirror.sh")
_BASE = re.compile(r"^FROM (python:\S+-(?P<suite>[a-z]+)) AS", re.MULTILINE)
_PACKAGES = "ca-certificates,python3,python3-venv"
# Debian's own pip can be neither used nor removed without more ado; its venv has a wheel of one.
_PIP = """
rm /usr/lib/python3.*/EXTERNALLY-MANAGED
wheel=$(echo /usr/share/python-wheels/pip-*.whl)
python3 "$wheel/pip" install --quiet --no-index --root-user-action=ignore "$wheel"
"""
# crun refuses a host that has cgroups of both versions: a mount namespace hides the second one.
_OLD_CGROUPS_ONLY = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
# The first that works here: overlay does not on top of another overlay, as in a container.
_DRIVERS = ("overlay", "vfs")
_STORAGE = """[storage]
driver = "{driver}"
graphroot = "{directory}/{driver}"
runroot = "{directory}/{driver}-run"
"""
# podman's own limits are higher than a root without CAP_SYS_RESOURCE may set.
_CONTAINERS = """[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
[network]
network_backend = "netavark"
network_config_dir = "{directory}/networks"
"""
_DEBOOTSTRAP_SECONDS = 600
_BUILD_SECONDS = 600
_TRIAL_SECONDS = 300
_SECONDS = 120


@dataclass(frozen=True)
class Done:
    """How a program ended, and what it wrote."""

    code: int
    output: str


class Engine:
    """A container engine with images and containers of its own, under `directory`."""

    def __init__(self, directory: Path) -> None:
        """Write its settings, with the first driver of storage that works here."""
        self._directory = directory
        storage, containers = directory / "storage.conf", directory / "containers.conf"
        containers.write_text(_CONTAINERS.format(directory=directory))
        self._settings = {
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_CONF": str(containers),
        }
        for driver in _DRIVERS:
            storage.write_text(_STORAGE.format(directory=directory, driver=driver))
            if self.podman("info", check=False).code == 0:
                break

    def build(self, name: str, *options: str) -> None:
        """Build the Dockerfile as the image `name`, from the stand-in and from nothing pulled."""
        base = _BASE.search(DOCKERFILE.read_text())
        assert base, "the Dockerfile's FROM has another shape"
        if self.podman("image", "exists", base[1], check=False).code:
            self.podman("import", "--quiet", str(_base_root(base["suite"])), base[1])
        argv = ["buildah", "bud", "--isolation=chroot", "--format=docker"]
        argv += ["--pull-never", "--network=host", f"--tag={name}"]
        argv += [f"--volume={source}:{target}:ro" for source, target in self._pip_settings()]
        _run([*argv, *options, str(ROOT)], _BUILD_SECONDS, True, self._settings)

    def podman(self, *arguments: str, check: bool = True) -> Done:
        """Run podman, which has to succeed unless `check` is False."""
        argv = ["unshare", "--mount", "sh", "-c", _OLD_CGROUPS_ONLY, "sh", "podman", *arguments]
        return _run(argv, _SECONDS, check, self._settings)

    def trial(self, file: Path) -> Done:
        """Run a compose file's service `test` and all that it needs, in a network of their own."""
        compose = Path(sys.executable).with_name("podman-compose")
        argv = ["unshare", "--mount", "--net", str(TRIAL), str(compose), str(file)]
        return _run(argv, _TRIAL_SECONDS, False, self._settings)

    @contextmanager
    def container(self, image: str, **variables: str) -> Iterator["Container"]:
        """A container in the host's network for as long as the block: as strict as can be.

        Not even the usual tmpfs on /tmp is there to be written to. `variables` go into its
        environment.
        """
        options = ["--network=host", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all"]
        options += ["--security-opt=no-new-privileges"]
        options += [f"--env={name}={value}" for name, value in variables.items()]
        made = self.podman("create", *options, image)
        container = Container(self, made.output.split()[-1])
        try:
            self.podman("start", container.id)
            yield container
        finally:
            self.podman("rm", "--force", "--volumes", "--time=0", container.id)

    def _pip_settings(self) -> Iterator[tuple[Path, Path]]:
        """What the host's pip needs to reach its index, as files to mount: source and target."""
        said = _run([sys.executable, "-m", "pip", "config", "list"], _SECONDS, True, {}).output
        found = dict(re.findall(r"^(?:global|:env:)\.(index-url|proxy|cert)=(.*)$", said, re.M))
        settings = {name: literal_eval(value) for name, value in found.items()}
        file = self._directory / "pip.conf"
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        file.write_text("".join(["[global]\n", *lines]))
        yield file, Path("/etc/pip.conf")
        if "cert" in settings:
            yield Path(settings["cert"]), Path(settings["cert"])


class Container:
    """A container that was started."""

    def __init__(self, engine: Engine, container_id: str) -> None:
        self._engine = engine
        self.id = container_id

    def run(self, *argv: str) -> str:
        """Run a program in it, beside the entry point and as its user; returns its stdout."""
        return self._engine.podman("exec", self.id, *argv).output

    def is_healthy(self) -> bool:
        """Run the image's HEALTHCHECK once."""
        return self._engine.podman("healthcheck", "run", self.id, check=False).code == 0

    def stop(self) -> None:
        """Send the image's STOPSIGNAL, and KILL only when the shutdown's 30 s are long over."""
        self._engine.podman("stop", "--time=60", self.id)

    def exit_code(self) -> int:
        """Wait for the entry point's end."""
        return int(self._engine.podman("wait", self.id).output)

    def log(self) -> str:
        """What the entry point wrote."""
        return self._engine.podman("logs", self.id).output


def _base_root(suite: str) -> Path:
    """A tar file with the root that stands in for the base image; made once per environment."""
    archive = ROOT / ".venv" / f"image-python-{suite}.tar"
    if not archive.exists():
        archive.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(prefix="image-base-", dir=archive.parent) as directory:
            root, made = Path(directory, "root"), Path(directory, "made.tar")
            mirror = _run([str(MIRROR), "Debian"], _SECONDS, True, {}).output.strip()
            argv = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}"]
            _run([*argv, suite, str(root), mirror], _DEBOOTSTRAP_SECONDS, True, {})
            _run(["chroot", str(root), "sh", "-euc", _PIP], _SECONDS, True, {})
            _run(["tar", "-C", str(root), "-cf", str(made), "."], _SECONDS, True, {})
            shutil.move(made, archive)
    return archive


def _run(argv: list[str], timeout: float, check: bool, settings: dict[str, str]) -> Done:
    done = subprocess.run(
        # What is being built or tried ends with tests that are killed.
        ["setpriv", "--pdeathsig", "KILL", *argv],
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,  # type: ignore[attr-defined]
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert not check or done.returncode == 0, f"{argv}:\n{done.stdout}\n{done.stderr}"
    return Done(done.returncode, done.stdout)
