"""An agent process for whatever Manager a test has."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.faulty_manager import Request, raw_reply
from tests.support.harness import AGENT, AgentProcess


@contextmanager
def lone_agent(
    url: str, directory: Path, *arguments: str, program: Sequence[str] = AGENT, **variables: str
) -> Iterator[AgentProcess]:
    """Agent a1, which asks quickly; it is ended with the block if it has not ended itself."""
    settings = {
        "MANAGER_URL": url,
        "AGENT_NAME": "a1",
        "AGENT_KEY": "key-1",
        "STATE_DIR": str(directory / "state"),
        "CLAIM_INTERVAL": "0.1",
        "HEARTBEAT_INTERVAL": "0.2",
        **variables,
    }
    agent = AgentProcess(*arguments, cwd=directory, program=program, **settings)
    try:
        yield agent
    finally:
        agent.close()


def passed_on(request: Request, url: str) -> bytes:
    """What another Manager answers to the request."""
    other = HTTPConnection(urlsplit(url).netloc)
    other.request(request.method, request.path, request.body, request.headers)
    answer = other.getresponse()
    content = answer.read()
    other.close()
    return raw_reply(content, answer.status)
