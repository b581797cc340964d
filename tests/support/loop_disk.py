"""A disk of its own for an agent, of which a copy shows what a power cut would have left."""

import os
import shutil
from pathlib import Path

from gevent import subprocess

BYTES = 16 * 1024**2
POSSIBLE = os.geteuid() == 0 and Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4")


class LoopDisk:
    """An ext4 on a loop device over `image`, mounted on `path`.

    What the kernel holds in memory and has not given to the device is not in the image.
    """

    def __init__(self, image: Path, path: Path) -> None:
        """Mount the image, and make it first if there is none."""
        self.image, self.path = image, path
        if not image.exists():
            with open(image, "wb") as file:
                file.truncate(BYTES)
            _run("mkfs.ext4", "-q", str(image))
        path.mkdir()
        # The device goes with the mount.
        _run("mount", "-o", "loop", str(image), str(path))

    def copy(self, image: Path) -> None:
        """Keep what the device has at this moment."""
        shutil.copyfile(self.image, image)

    def unmount(self) -> None:
        """Take it away, in use or not."""
        _run("umount", "--lazy", str(self.path))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)
