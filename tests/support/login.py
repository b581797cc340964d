"""A login for iperf3, made by the commands that docs/protocol.md has for that."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gevent import subprocess

from tests.support.harness import ROOT
from tests.support.needs import need

need(shutil.which("openssl"), "there is no openssl")


@dataclass(frozen=True)
class Login:
    """A user with a password, the texts of two keys, and the line of the user for a server."""

    user: str
    password: str
    public_key: str
    private_key: str
    users: str

    @property
    def of_client(self) -> dict[str, Any]:
        """The keys of a client's payload."""
        return {
            "username": self.user,
            "password": self.password,
            "rsa_public_key": self.public_key,
        }

    @property
    def of_server(self) -> dict[str, Any]:
        """The keys of a server's payload."""
        return {"rsa_private_key": self.private_key, "authorized_users": self.users}

    @property
    def secrets(self) -> dict[str, str]:
        """What may be found nowhere: of the private key, a line in its middle."""
        return {
            "password": self.password,
            "private key": self.private_key.splitlines()[9],
            "hash": self.users.strip().partition(",")[2],
        }


def documented_commands() -> str:
    """The commands of the page's section about logins."""
    section = (ROOT / "docs" / "protocol.md").read_text().partition("### A login for one test")[2]
    block = re.search(r"^```bash\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert block is not None
    return block[1]


def make_login(directory: Path) -> Login:
    """Run the commands in a directory, and read what they leave there."""
    script = f'set -eu\n{documented_commands()}\necho "$user $password" >who'
    subprocess.run(["bash", "-c", script], cwd=directory, check=True, stderr=subprocess.PIPE)
    files = ("public.pem", "private.pem", "users.csv")
    texts = [(directory / name).read_text() for name in files]
    user, password = (directory / "who").read_text().split()
    return Login(user, password, *texts)
