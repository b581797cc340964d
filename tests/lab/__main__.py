"""The command `python -m tests.lab`: plays scenes and prints what the agents report of each."""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import msgspec  # noqa: E402

from tests.lab.catalogue import SCENES  # noqa: E402
from tests.lab.stage import stage  # noqa: E402


def main() -> None:
    """Play the scenes that are asked for, and print the path and the host as each end sees it."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("scenes", nargs="*", help="how their names begin; by default all")
    parser.add_argument("--times", type=int, default=5, help="how often each is played (5)")
    parser.add_argument("--list", action="store_true", help="print the names and play nothing")
    options = parser.parse_args()
    beginnings = tuple(options.scenes) or ("",)
    chosen = [scene for scene in SCENES if scene.name.startswith(beginnings)]
    if options.list:
        print(*(f"{scene.name}{' (clear)' * scene.is_clear}" for scene in chosen), sep="\n")
        return
    with tempfile.TemporaryDirectory() as directory, stage(Path(directory)) as playing:
        for scene in chosen * options.times:
            print(
                scene.name, *map(msgspec.to_builtins, playing.play(scene)), sep="\n  ", flush=True
            )


if __name__ == "__main__":
    main()
