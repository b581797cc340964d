"""The calls of an operator to a Manager, and what it knows of agents, as enrol.py needs them."""

import ssl
from collections import Counter
from typing import Annotated, Any, TypeVar

import click
import msgspec
import requests

from agent.manager.proxy import proxy_of
from agent.manager.reasons import suspect, why
from agent.text import hidden, printable, shortened

# Seconds for a connection, and for each part of an answer.
PATIENCE = 30
# Characters of what the Manager says about a refusal.
MAX_WORDS = 300
# Refusals of what was asked for. After any other one, no call would do better.
_OF_ONE_AGENT = (400, 404, 409, 422)
_Kind = TypeVar("_Kind")


class Refused(click.ClickException):
    """The Manager refuses one agent. The words of its refusal are there without the key."""


class Record(msgspec.Struct):
    """An agent as the Manager has it. `registration_key` is a secret."""

    id: int
    name: str
    status: str = "offline"
    disabled: bool = False
    ip_address: str | None = None
    last_heartbeat: str | None = None
    registration_key: str | None = None

    @property
    def state(self) -> str:
        """Its status in words."""
        if self.disabled:
            return "disabled"
        return self.status if self.last_heartbeat else "never registered"


class _Token(msgspec.Struct):
    # It is to stand in a header.
    access_token: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+\Z")]


class Manager:
    """One Manager. The calls raise Refused, or ClickException if others would fail as well."""

    def __init__(self, url: str, ca_file: str | None) -> None:
        self._url = url
        self._session = requests.Session()
        # Otherwise .netrc would replace the login, and REQUESTS_CA_BUNDLE the CA.
        self._session.trust_env = False
        system = ssl.get_default_verify_paths()
        self._session.verify = ca_file or system.cafile or system.capath or True

    def log_in(self, user: str, password: str) -> None:
        """Log in, for the calls that follow."""
        body = {"username": user, "password": password}
        token = self._call("POST", "auth/login", _Token, body, password).access_token
        self._session.headers["Authorization"] = f"Bearer {token}"

    def agents(self) -> dict[str, Record]:
        """All agents by name, also those that are disabled."""
        found = self._call("GET", "agents?include_disabled=true", list[Record])
        return {record.name: record for record in found}

    def create(self, name: str, key: str) -> None:
        """Create an agent with this key."""
        self._give_key("POST", "agents", {"name": name, "registration_key": key})

    def change_key(self, agent_id: int, key: str) -> None:
        """Give an agent this key, instead of the one that it has."""
        self._give_key("PUT", f"agents/{agent_id}", {"registration_key": key})

    def _give_key(self, method: str, path: str, body: dict[str, str]) -> None:
        key = body["registration_key"]
        if self._call(method, path, Record, body, key).registration_key not in (key, None):
            raise Refused("the Manager answers well, and has another key: change it there")

    def _call(
        self, method: str, path: str, kind: type[_Kind], body: Any = None, secret: str = ""
    ) -> _Kind:
        url = f"{self._url}/v1/{path}"
        try:
            proxies = dict.fromkeys(("http", "https"), proxy_of(url))
            answer = self._session.request(
                method, url, json=body, timeout=PATIENCE, allow_redirects=False, proxies=proxies
            )
        except (OSError, ValueError) as error:
            raise click.ClickException(why(error, url)) from None
        if answer.status_code in (200, 201):
            try:
                return msgspec.json.decode(answer.content, type=kind)
            except (ValueError, RecursionError):
                raise click.ClickException(f"{url}: this is no answer of a Manager") from None
        status = answer.status_code
        told = f"{url}: {status}{_words(answer, secret)} {suspect(status, url)}".strip()
        is_of_one = secret and path.startswith("agents") and status in _OF_ONE_AGENT
        raise Refused(told) if is_of_one else click.ClickException(told)


def _words(answer: requests.Response, secret: str) -> str:
    """What a refusal says. It may repeat what was sent."""
    if answer.is_redirect:
        return f": a redirect, not followed, to {printable(answer.headers['Location'])}"
    try:
        told = answer.json()
        said = told.get("message") or told["detail"]
        # A 422 has a list of faults, each with what was wrong in it.
        words = "; ".join(each["msg"] for each in said) if isinstance(said, list) else str(said)
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return ""
    return f": {shortened(printable(hidden(secret, words)), MAX_WORDS)}"


def show(known: dict[str, Record], done: dict[str, str]) -> None:
    """Print a table of the names, and how many there are of each kind."""
    row = "{:<{width}}  {:<8}  {:<16}  {:<15}  {}".format
    width = max(map(len, done))
    click.echo(row("NAME", "DONE", "AT THE MANAGER", "ADDRESS", "LAST HEARD OF", width=width))
    states = Counter[str]()
    for name, what in done.items():
        record = known.get(name) or Record(0, name)
        state = printable(record.state) if name in known else "unknown"
        states[state] += 1
        address, heard = record.ip_address or "-", record.last_heartbeat or "-"
        click.echo(printable(row(name, what, state, address, heard, width=width)))
    counts = [*Counter(done.values()).items(), *states.items()]
    click.echo(f"{len(done)} names: {', '.join(f'{count} {what}' for what, count in counts)}")
