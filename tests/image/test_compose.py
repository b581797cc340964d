"""The compose file, run as its first lines say."""

import pytest
import yaml

from tests.image.conftest import IMAGE
from tests.support.container_engine import Engine
from tests.support.harness import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

FILE = ROOT / "deployment" / "docker-compose.yml"


def test_two_agents_and_a_manager_run_a_test(engine: Engine) -> None:
    """The images are those that the file would build, under the names that it gives them."""
    services = yaml.safe_load(FILE.read_text())["services"]
    manager = services["manager"]
    engine.build(f"localhost/{manager['image']}", f"--target={manager['build']['target']}")
    engine.podman("tag", IMAGE, f"localhost/{services['agent1']['image']}")
    ended = engine.trial(FILE)
    assert ended.code == 0, ended.output
    assert "agent1 to agent2, TCP, 5 s: sent " in ended.output
