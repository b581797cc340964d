"""What is read of the files that deploy the agent."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from agent.config.settings import SETTINGS, Config
from tests.support.harness import ROOT

DEPLOYMENT = ROOT / "deployment"
IMAGE = ROOT / "Dockerfile"
BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}


def default(variable: str) -> Any:
    """A setting's default, as the agent has it."""
    return getattr(Config, BY_VARIABLE[variable].name)


def manifest(path: Path) -> Any:
    """The one document of a YAML file."""
    return yaml.safe_load(path.read_text())


def image_user() -> tuple[int, int]:
    """The user and the group that the image runs as."""
    user, group = re.findall(r"^USER (\d+):(\d+)$", IMAGE.read_text(), re.MULTILINE)[-1]
    return int(user), int(group)


def image_volumes() -> set[str]:
    """The directories that the image wants kept."""
    volumes = re.findall(r"^VOLUME (\[.*\])$", IMAGE.read_text(), re.MULTILINE)
    return set(json.loads(volumes[-1]))


def name(path: Path) -> str:
    """How a file is called in pytest's output."""
    return str(path.relative_to(ROOT))
