"""The command `python -m tests.lab`: plays scenes and prints how they were named."""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

from tests.lab.catalogue import SCENES  # noqa: E402
from tests.lab.matrix import matrix  # noqa: E402
from tests.lab.stage import stage  # noqa: E402
from tests.lab.verdicts import Verdict, verdicts  # noqa: E402


def main() -> None:
    """Play the scenes that are asked for, and print what is said of each, and the matrix."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("scenes", nargs="*", help="how their names begin; by default all")
    parser.add_argument("--times", type=int, default=5, help="how often each is played (5)")
    parser.add_argument("--clear", action="store_true", help="only those of `make test-lab`")
    parser.add_argument("--list", action="store_true", help="print the names and play nothing")
    options = parser.parse_args()
    beginnings = tuple(options.scenes) or ("",)
    chosen = [
        scene
        for scene in SCENES
        if scene.name.startswith(beginnings) and (scene.is_clear or not options.clear)
    ]
    if options.list:
        print(*(f"{scene.name}{' (clear)' * scene.is_clear}" for scene in chosen), sep="\n")
        return
    found: list[Verdict] = []
    with tempfile.TemporaryDirectory() as directory, stage(Path(directory)) as playing:
        for scene in chosen * options.times:
            said = list(verdicts(scene, *playing.play(scene)))
            wrong = [each for each in said if each.is_wrong]
            print(f"{'WRONG' if wrong else 'right'}: {scene.name}", *wrong, sep="\n  ", flush=True)
            found += said
    print(matrix(found))


if __name__ == "__main__":
    main()
