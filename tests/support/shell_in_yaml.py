"""Has shellcheck look at the shell that YAML files hold; ends with 1 when it finds something.

python -m tests.support.shell_in_yaml DIRECTORY

That is what cloud-init runs, each `sh -c`, and each file that begins as a shell script.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

SHELLCHECK = Path(sys.executable).parent / "shellcheck"


def scripts(node: object, key: str = "") -> Iterator[str]:
    """Every piece of shell below a node that stands under `key`."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from scripts(value, str(name))
    elif isinstance(node, list):
        words = [str(word) for word in node]
        # For cloud-init a list is a command, and a text a script.
        if "-c" in words and words[words.index("-c") - 1] in ("sh", "/bin/sh", "bash"):
            yield words[words.index("-c") + 1]
        else:
            for value in node:
                yield from scripts(value, "" if isinstance(value, list) else key)
    elif isinstance(node, str) and (key in ("runcmd", "bootcmd") or node.startswith("#!/bin/sh")):
        yield node


def complaints(path: Path) -> list[str]:
    """What shellcheck says about a file's scripts."""
    found = []
    for document in yaml.safe_load_all(path.read_text()):
        for script in scripts(document):
            argv = [str(SHELLCHECK), "--shell=sh", "-"]
            done = subprocess.run(argv, input=script, capture_output=True, text=True)
            if done.returncode:
                found.append(f"{path}:\n{done.stdout}{done.stderr}")
    return found


if __name__ == "__main__":
    files = sorted(Path(sys.argv[1]).rglob("*.y*ml"))
    said = [words for path in files for words in complaints(path)]
    print(*said, sep="\n", end="", file=sys.stderr)
    sys.exit(bool(said))
