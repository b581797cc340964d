"""What many readers of the status page cost the agent, and by which names they may ask."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from gevent.event import Event

from agent.manager.registration import Registration
from agent.metrics import Metrics
from agent.status import server as server_module
from agent.status.server import StatusServer
from agent.tasks.context import TaskContext
from tests.support.harness import free_port
from tests.support.status_page import ask

READERS = 20
# Seconds of the processor for one answer, as with 200 running tests.
COST = 0.05


class _Busy:
    """An agent whose state takes long to write down."""

    def __init__(self, cost: float) -> None:
        self.cost = cost
        self.asked: Counter[str] = Counter()
        self.metrics = Metrics()

    def take_snapshot(self, _: object) -> Any:
        """A state that counts how often it was asked for."""
        self.asked["snapshot"] += 1
        until_then = time.monotonic() + self.cost
        while time.monotonic() < until_then:
            pass
        return SimpleNamespace(asked=self.asked["snapshot"])


class _Slow:
    """Metrics that let others run while they are made."""

    def __init__(self, *_: object) -> None:
        """There is nothing in them."""

    def export(self) -> bytes:
        """All of them."""
        gevent.sleep(COST)
        return b""


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, host: str) -> Iterator[tuple[_Busy, int]]:
    """A status page of such an agent, at a port of that host."""
    monkeypatch.setattr(server_module, "Snapshot", _Busy.take_snapshot)
    monkeypatch.setattr(server_module, "render_page", str)
    monkeypatch.setattr(server_module, "Scrape", _Slow)
    busy, port, stop = _Busy(COST), free_port(), Event()
    page = StatusServer(cast(TaskContext, busy), cast(Registration, None), (host, port))
    running = gevent.spawn(page.run, stop)
    gevent.sleep(0)
    yield busy, port
    stop.set()
    running.get()


@pytest.fixture(name="served")
def fixture_served(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[_Busy, str]]:
    """It and its URL."""
    with serving(monkeypatch, "127.0.0.1") as (busy, port):
        yield busy, f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("path", ["/status", "/", "/metrics"])
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


@pytest.mark.parametrize("host", ["127.1", "2130706433", "::ffff:127.0.0.1", "localhost"])
def test_loopback_by_another_name_refuses_foreign_names_too(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    with serving(monkeypatch, host) as (_, port):
        url = f"http://127.0.0.1:{port}"
        assert ask(url, "/livez").status == 200
        assert ask(url, "/livez", Host="evil.example").status == 403


def test_an_address_of_the_network_may_have_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(monkeypatch, "0.0.0.0") as (_, port):
        assert ask(f"http://127.0.0.1:{port}", "/livez", Host="host.example").status == 200
