"""What many readers of the status page cost the agent: no more than a few."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import gevent
import pytest
from gevent.event import Event

from agent.status import server as server_module
from agent.status.server import StatusServer
from agent.status.snapshot import AgentState
from tests.support.harness import free_port, until
from tests.support.status_page import ask

READERS = 20
# Seconds of the processor for one answer, as with 200 running tests.
COST = 0.05


class _Busy:
    """An agent whose state takes long to write down."""

    def __init__(self, cost: float) -> None:
        self.cost = cost
        self.asked: Counter[str] = Counter()

    def take_snapshot(self) -> Any:
        """A state that counts how often it was asked for."""
        self.asked["snapshot"] += 1
        until_then = time.monotonic() + self.cost
        while time.monotonic() < until_then:
            pass
        return {"asked": self.asked["snapshot"]}


@pytest.fixture(name="served")
def fixture_served(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[_Busy, str]]:
    """A status page of such an agent."""
    monkeypatch.setattr(server_module, "render_page", str)
    monkeypatch.setattr(server_module, "MetricsExporter", lambda *_: None)
    busy, port, stop = _Busy(COST), free_port(), Event()
    page = StatusServer(cast(AgentState, busy), ("127.0.0.1", port))
    running = gevent.spawn(page.run, stop)
    url = f"http://127.0.0.1:{port}"
    until(lambda: running.started)
    yield busy, url
    stop.set()
    running.get()


@pytest.mark.parametrize("path", ["/status", "/"])
def test_readers_at_once_share_one_answer(served: tuple[_Busy, str], path: str) -> None:
    busy, url = served
    began = time.monotonic()
    readers = [gevent.spawn(ask, url, path) for _ in range(READERS)]
    answers = [reader.get() for reader in readers]
    took = time.monotonic() - began
    assert {answer.status for answer in answers} == {200}
    # Each answer serves for ten times what it cost.
    assert busy.asked["snapshot"] <= 1 + took / (10 * COST)


def test_an_answer_that_costs_little_is_of_now(served: tuple[_Busy, str]) -> None:
    busy, url = served
    busy.cost = 0.0001
    first = ask(url, "/status").json()["asked"]
    gevent.sleep(0.1)
    assert ask(url, "/status").json()["asked"] == first + 1
