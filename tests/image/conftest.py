"""The images, built once for all tests of this directory."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container_engine import PROGRAMS, Engine
from tests.support.needs import need

IMAGE = "localhost/iperf-agent"


@pytest.fixture(name="engine", scope="session")
def fixture_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that has the agent's image."""
    need(os.geteuid() == 0, "building and running an image takes root")
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    need(not missing, f"not installed: {', '.join(missing)}")
    directory: Path = tmp_path_factory.mktemp("engine")
    engine = Engine(directory)
    try:
        engine.build(IMAGE)
        yield engine
    finally:
        # Some hundred MB for each step of the Dockerfile.
        shutil.rmtree(directory)
