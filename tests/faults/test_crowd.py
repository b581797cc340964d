"""Two hundred agents whose Manager comes back: they must not all come at once."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import gevent
import pytest
from gevent import subprocess
from gevent.event import Event
from gevent.server import StreamServer

from tests.support.faulty_manager import FaultyManager, Request, reply, well
from tests.support.harness import ROOT, environment

AGENTS = 200
PROCESSES = 4
AWAY_SECONDS = 45.0
# Every result is promised within 35 s of the Manager's return.
RETURN_SECONDS = 35.0
# As long as an agent of ours prefers its claims to be held.
HELD_SECONDS = 20.0
NOTHING_YET = reply({"task": None}, Preference_Applied="wait")


class Comeback(FaultyManager):
    """A Manager that leaves with a task for each agent, and comes back.

    `held` is how many claims wait here. `heard` has, of each call, who made it and when.
    """

    def __init__(self) -> None:
        super().__init__(self._answered)
        self.held = 0
        self.heard: dict[str, list[tuple[str, float]]] = {}
        self._away = False
        self._leaving = Event()

    def leave(self) -> None:
        """Hand every claim that is held a task, hear nothing more, and refuse connections."""
        self._server.stop()
        self._away = True
        self._leaving.set()

    def come_back(self) -> None:
        """Listen again, where it did before, and forget what was heard by then."""
        self._away = False
        self.heard.clear()
        self._server = StreamServer(("127.0.0.1", self._server.server_port), self._serve)
        self._server.start()

    def _answered(self, request: Request) -> bytes:
        if self._away:
            return b""
        name = request.headers["x-agent-name"]
        self.heard.setdefault(request.call, []).append((name, time.monotonic()))
        return self._claimed(name) if request.call == "claim" else well(request)

    def _claimed(self, name: str) -> bytes:
        if self._leaving.is_set():
            gevent.sleep(HELD_SECONDS)
            return NOTHING_YET
        self.held += 1
        leaves = self._leaving.wait(HELD_SECONDS)
        self.held -= 1
        task = {"id": int(name[1:]), "type": "kill_all", "payload": {}}
        return reply({"task": task}) if leaves else NOTHING_YET


@contextmanager
def crowd(url: str, directory: Path) -> Iterator[None]:
    """As many agents as AGENTS says, named a1 and so on, until the block's end."""
    share = AGENTS // PROCESSES
    with ExitStack() as stack:
        for first in range(1, AGENTS, share):
            argv = [sys.executable, "-m", "tests.support.agent_crowd", url, directory, first, share]
            process = subprocess.Popen([*map(str, argv)], cwd=ROOT, env=environment())
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_crowd_comes_back_spread_over_the_time_there_is(tmp_path: Path) -> None:
    """Promise 7 for 200 agents, each with a result that waits, after an outage of 45 s.

    Of an agent's registrations, claims and results the first after the return counts: it is all
    that the outage has put off. Heartbeats all count, and a registration comes with the first that
    is answered. The busiest second had 12 claims, 12 results, 46 registrations and 43 heartbeats;
    it had all 200 heartbeats when agents that started together beat together.
    """
    manager = Comeback()
    with crowd(manager.url, tmp_path):
        manager.wait_for(lambda: manager.held == AGENTS, timeout=60)
        manager.leave()
        gevent.sleep(AWAY_SECONDS)
        manager.come_back()
        began = time.monotonic()
        gevent.sleep(RETURN_SECONDS)
        manager.stop()
    busiest = {}
    for call in ("register", "claim", "result"):
        firsts = dict(reversed(manager.heard[call]))
        assert len(firsts) == AGENTS, f"{call}: {AGENTS - len(firsts)} agents are missing"
        busiest[call] = most_in_a_second(began, list(firsts.values()))
    beats = manager.heard["heartbeat"]
    busiest["heartbeat"] = most_in_a_second(began, [moment for _, moment in beats])
    print(f"calls in the busiest second: {busiest}; {len(beats)} heartbeats")
    assert len(beats) >= AGENTS * (RETURN_SECONDS // 5 - 1), "heartbeats wait for nothing"
    assert busiest.pop("heartbeat") <= 0.3 * AGENTS
    assert busiest.pop("register") <= 0.3 * AGENTS
    assert max(busiest.values()) <= 0.1 * AGENTS


def most_in_a_second(began: float, moments: list[float]) -> int:
    """How many fall into the busiest of the seconds since then."""
    return max(Counter(int(moment - began) for moment in moments).values())
