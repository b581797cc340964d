"""`agent-run --check`, and what it prints."""

from pathlib import Path

from tests.support.command import Ended, run

CANARY = "canary-77aa"


def check(directory: Path, url: str, *arguments: str, **variables: str) -> Ended:
    """Run a check in this directory, of agent a1 with the Manager at this URL."""
    settings = {
        "MANAGER_URL": url,
        "AGENT_NAME": "a1",
        "AGENT_KEY": CANARY,
        "STATE_DIR": str(directory / "state"),
        **variables,
    }
    ended = run("--check", *arguments, cwd=directory, **settings)
    assert "Traceback" not in ended.errors
    assert CANARY not in ended.output + ended.errors
    return ended


def marks(ended: Ended) -> dict[str, str]:
    """Each finding's mark: `ok` or `not ok`."""
    lines = ended.output.splitlines()
    return {line[8:24].strip(): line[:8].strip() for line in lines}


def said(ended: Ended, name: str) -> str:
    """What it says of one thing, with its mark."""
    (line,) = [line for line in ended.output.splitlines() if line[8:24].strip() == name]
    return f"{line[:8].strip()}: {line[25:]}"
