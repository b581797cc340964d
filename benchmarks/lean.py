"""A virtual environment with what requirements.txt names and nothing else, as users have it.

With the packages for the tests structlog imports rich, which costs 4 MiB.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
_PLACE = ROOT / ".venv" / "lean"


def lean_agent() -> tuple[str, ...]:
    """The command that runs the agent there; the environment is made when it is not there."""
    wanted = (ROOT / "requirements.txt").read_text()
    mark = _PLACE / "requirements.txt"
    python = str(_PLACE / "bin" / "python")
    if not mark.exists() or mark.read_text() != wanted:
        shutil.rmtree(_PLACE, ignore_errors=True)
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, _PLACE], check=True)
        install = [*uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
        subprocess.run([*install, "-r", ROOT / "requirements.txt"], check=True)
        mark.write_text(wanted)
    return (python, "-m", "agent")
