"""Bad weather between an agent and its Manager: what the dice say befalls each call."""

import random
import time
from collections import Counter

import gevent

from tests.support.faulty_manager import Request, raw_reply
from tests.support.lone_agent import passed_on
from tests.support.sockets import reset

PAGE = b"<html>try again later</html>"
# Of a hundred calls so many get through as they should.
WELL = 75
OUTAGE_SECONDS = (1.0, 4.0)
SLOW_SECONDS = (0.2, 2.0)
# What befalls the others, by how often.
FAULTS = {
    "reset before": 3,
    "reset after": 3,
    "truncated": 3,
    "slow": 3,
    "page": 3,
    "503": 3,
    "503, wait": 2,
    "outage": 1,
}


class Weather:
    """Answers calls for the Manager at `url` while `bad`; `faults` counts what befell them."""

    def __init__(self, url: str, dice: random.Random) -> None:
        self.bad = True
        self.faults: Counter[str] = Counter()
        self._url = url
        self._dice = dice
        self._away_until = 0.0

    def __call__(self, request: Request) -> bytes:
        """The bytes for this call; none close its connection."""
        if not self.bad:
            return passed_on(request, self._url)
        if time.monotonic() < self._away_until:
            return self._refused(request)
        if self._dice.randrange(100) < WELL:
            return passed_on(request, self._url)
        fault = self._dice.choices(list(FAULTS), list(FAULTS.values()))[0]
        self.faults[fault] += 1
        return self._befalls(fault, request)

    def _befalls(self, fault: str, request: Request) -> bytes:
        match fault:
            case "reset before":
                return self._refused(request)
            case "reset after":
                passed_on(request, self._url)
                return self._refused(request)
            case "truncated":
                answer = passed_on(request, self._url)
                request.socket.sendall(answer[: self._dice.randrange(len(answer))])
                return b""
            case "slow":
                gevent.sleep(self._dice.uniform(*SLOW_SECONDS))
                return passed_on(request, self._url)
            case "page":
                return raw_reply(PAGE)
            case "503":
                return raw_reply(PAGE, 503)
            case "503, wait":
                return raw_reply(PAGE, 503, Retry_After="1")
        self._away_until = time.monotonic() + self._dice.uniform(*OUTAGE_SECONDS)
        return self._refused(request)

    def _refused(self, request: Request) -> bytes:
        reset(request.socket)
        return b""
