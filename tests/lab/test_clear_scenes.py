"""Scenes of whose cause nobody should be in doubt: it is named, and nothing wrong is sure."""

import os
import shutil
import sys
from collections.abc import Iterator

import pytest

from tests.lab.catalogue import SCENES
from tests.lab.scenes import Scene
from tests.lab.stage import Stage, stage
from tests.lab.verdicts import verdicts
from tests.support.needs import need

need(
    sys.platform == "linux"
    and os.geteuid() == 0
    and all(shutil.which(command) for command in ("ip", "tc", "nft", "ethtool"))
    and os.path.exists("/dev/net/tun"),
    "the lab needs Linux, root, iproute2, nftables, ethtool and /dev/net/tun",
)

CLEAR = [scene for scene in SCENES if scene.is_clear]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture(name="playing", scope="module")
def fixture_playing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The two agents, the same for all scenes."""
    with stage(tmp_path_factory.mktemp("lab")) as playing:
        yield playing


@pytest.mark.parametrize("scene", CLEAR, ids=[scene.name for scene in CLEAR])
def test_a_clear_scene_is_named_and_nothing_wrong_is_sure(playing: Stage, scene: Scene) -> None:
    """As both halves together name it; each alone may be unsure."""
    said = list(verdicts(scene, *playing.play(scene)))
    wrong = [str(each) for each in said if each.misleads or each.is_missed]
    assert not wrong, "\n".join(wrong)
