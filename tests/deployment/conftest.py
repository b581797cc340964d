"""What the machines install: a release of this tree, as its users get it."""

import shutil
import sys
from pathlib import Path

import pytest
from gevent import subprocess

from tests.support.harness import ROOT
from tests.support.machine import NEXT, WHEELHOUSE, build_wheel


@pytest.fixture(name="release", scope="session")
def fixture_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a release, its archive of wheels unpacked, and NEXT in `next`."""
    directory = tmp_path_factory.mktemp("release")
    tree, release = directory / "tree", directory / "release"
    subprocess.run([ROOT / "tests/support/committed_copy.sh", tree], check=True)
    subprocess.run([tree / "deployment/dist.sh", sys.prefix, release], check=True)
    shutil.unpack_archive(release / f"{WHEELHOUSE}.tar", release)
    build_wheel(release / "next", NEXT)
    return release
