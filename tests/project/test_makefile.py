"""The targets of the Makefile that install what is missing, and the one that builds a release."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.support.command import run_program
from tests.support.harness import ROOT

MAKE = shutil.which("make") or ""
pytestmark = pytest.mark.skipif(not MAKE, reason="make is not installed here")


@pytest.fixture(name="clone")
def fixture_clone(tmp_path: Path) -> Path:
    """A clone with a virtual environment. It installs no package, but prints that it would."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    installer = tmp_path / "deployment" / "install-package.sh"
    installer.parent.mkdir()
    installer.write_text("#!/bin/sh\necho installs $1\n")
    installer.chmod(0o755)
    return tmp_path


def installs(clone: Path, **variables: str) -> bool:
    """Whether `make iperf3` installs iperf3 on a host with none on its PATH."""
    ended = run_program(MAKE, "iperf3", cwd=clone, PATH=str(clone), **variables)
    assert (ended.code, ended.errors) == (0, "")
    assert ended.output in ("", "installs iperf3\n")
    return bool(ended.output)


@pytest.mark.process
def test_iperf3_is_installed_unless_iperf3_path_names_another(
    clone: Path,
) -> None:
    own = clone / "my iperf3"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert installs(clone)
    assert not installs(clone, IPERF3_PATH=str(own))
    (clone / ".env").write_text("AGENT_NAME=a1\n")
    assert installs(clone)
    (clone / ".env").write_text(f'export IPERF3_PATH="{own}" # mine\n')
    assert not installs(clone)
    assert installs(clone, IPERF3_PATH="iperf3")


@pytest.mark.process
def test_a_release_that_is_not_whole_leaves_the_one_before(clone: Path) -> None:
    before = clone / "dist" / "SHA256SUMS"
    before.parent.mkdir()
    before.touch()
    build = clone / "deployment" / "dist.sh"
    build.write_text('#!/bin/sh\nmkdir "$2" && touch "$2/half" && echo full disk >&2\nexit 1\n')
    build.chmod(0o755)
    for _ in range(2):
        ended = run_program(MAKE, "--old-file=.venv/.dev", "dist", cwd=clone)
        assert ended.code != 0 and ended.errors.startswith("full disk\n")
        assert list(before.parent.iterdir()) == [before]
