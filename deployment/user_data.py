"""User data of machines, made of deployment/cloud-init.yaml."""

import re
from textwrap import dedent
from typing import TextIO

import click

FOLDER = "/etc/iperf-agent"
# In the template, where the package is to stand.
EXAMPLE = "packages.example.com"
# Lines of agent.env that are each agent's own. systemd takes them with blanks as well.
OWN = re.compile(r"\s*(MANAGER_URL|AGENT_NAME|AGENT_KEY)\s*=")


class UserData:
    """Makes user data of a template, which is deployment/cloud-init.yaml or a copy of it."""

    def __init__(self, template: TextIO, requirements: TextIO | None, url: str) -> None:
        """Fill in what is the same for all; raises ClickException if the template does not fit."""
        self._name, self._text = template.name, f"{template.read().rstrip()}\n"
        settings = self._lines("agent.env")[0]
        if requirements:
            self._fill("requirements.txt", requirements.read().strip().splitlines())
        pip = "\n".join(self._lines("requirements.txt")[0])
        if EXAMPLE in pip or not re.search(r"(?m)^ *[^#\s]", pip):
            fault = f"the lines for pip are empty, or {self._name} still has {EXAMPLE}"
            raise click.ClickException(f"{fault}: give --requirements")
        kept = [line for line in settings if not OWN.match(line)]
        self._settings = [f"MANAGER_URL={url}", *kept]
        # Whether it has a place for the key.
        self._lines("agent.key")

    def make(self, name: str, key: str) -> bytes:
        """The user data of one agent."""
        self._fill("agent.env", [*self._settings, f"AGENT_NAME={name}"])
        self._fill("agent.key", [key])
        return self._text.encode()

    def _lines(self, file: str) -> tuple[list[str], str, int, int]:
        """The lines of one of the files, their indent, and where they begin and end."""
        path = re.escape(f"{FOLDER}/{file}")
        head = rf"(?m)^( *)- path: {path}\n(?:\1  \S.*\n)*?\1  content: \| *\n"
        if not (found := re.search(head, self._text)):
            fault = f"{self._name} has no `- path: {FOLDER}/{file}` with `content: |`"
            raise click.ClickException(f"{fault}: take deployment/cloud-init.yaml, or a copy of it")
        indent = f"{found[1]}    "
        # Blank lines after the last one are not a part of it.
        body = re.compile(rf"(?:(?: *\n)*{found[1]}   .*\n)*").match(self._text, found.end())
        assert body
        return dedent(body[0]).splitlines(), indent, *body.span()

    def _fill(self, file: str, lines: list[str]) -> None:
        _, indent, begin, end = self._lines(file)
        filled = "".join(f"{indent}{line}".rstrip() + "\n" for line in lines)
        self._text = self._text[:begin] + filled + self._text[end:]
