"""The recorded runs of real iperf3s under data/, as values."""

import pathlib
from collections.abc import Iterator
from typing import Any

import msgspec

from agent.iperf3.features import Features, parse_features
from agent.iperf3.figures import figures_of
from agent.iperf3.summary import Summary, read_summary
from agent.iperf3.verdict import last_served
from agent.iperf3.warnings import warnings_about
from agent.protocol import Report

DATA = pathlib.Path(__file__).parent.parent / "iperf3" / "data"
VERSIONS = sorted(path.name for path in DATA.iterdir())


class Run(msgspec.Struct):
    """How one recorded child ended and what it printed."""

    role: str
    exit_code: int
    stderr: str
    stdout: bytes = b""


def runs(version: str) -> dict[str, Run]:
    """All recorded runs of one version, by the case's name."""
    index = (DATA / version / "cases.json").read_bytes()
    cases = msgspec.json.decode(index, type=dict[str, Run])
    for name, run in cases.items():
        run.stdout = (DATA / version / f"{name}.stdout").read_bytes()
    return cases


def run(version: str, case: str) -> Run:
    """One recorded run."""
    return runs(version)[case]


def summary_of(found: Run) -> Summary:
    """The summary of the newest document of a test."""
    span = last_served(found.stdout).span
    assert span is not None
    summary = read_summary(found.stdout[slice(*span)])
    assert summary is not None
    return summary


def doubts(summary: Summary, told: Features, report: Report | None = None) -> list[str]:
    """The warnings about a document without its intervals."""
    return warnings_about(summary, figures_of(summary), told, report or Report())


def features(version: str) -> Features:
    """What the recorded iperf3 said of itself."""
    folder = DATA / version
    version_text = (folder / "version.txt").read_text()
    return parse_features("/usr/bin/iperf3", version_text, (folder / "help.txt").read_text())


def paths(value: Any, path: str = "") -> Iterator[str]:
    """The paths of a document with the kinds of their values; a list counts as one element."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{path}[]")
    else:
        yield f"{path}: {'text' if isinstance(value, str) else 'number'}"
