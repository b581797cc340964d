"""Iperf Orchestrator Agent: claims iperf3 tasks from a Manager and reports what happened."""

import os
import re

_INSTALLED = re.compile(r"iperf_orchestrator_agent-(.+)\.dist-info")
_STATED = re.compile(r'^name = "iperf-orchestrator-agent"\nversion = "(.+)"$', re.MULTILINE)


def _find_version() -> tuple[str, str]:
    """The version that pyproject.toml states, and the source tree, empty for an installed package.

    An installed package has the version in the name of the directory beside it. importlib.metadata
    takes ten times as long, and may find another copy than the one that runs.
    """
    parent = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    try:
        for name in os.listdir(parent):
            if match := _INSTALLED.fullmatch(name):
                return match[1], ""
        with open(os.path.join(parent, "pyproject.toml"), encoding="utf-8") as file:
            match = _STATED.search(file.read())
    except OSError:
        match = None
    return (match[1], parent) if match else ("unknown", "")


__version__, SOURCE_TREE = _find_version()
