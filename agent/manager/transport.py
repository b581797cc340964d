"""One HTTP request under one deadline, over a connection that is known to be fresh."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import gevent
import requests
import structlog
from urllib3.exceptions import HTTPError

from agent import __version__
from agent.config.settings import Config
from agent.errors import ManagerAway
from agent.manager.connection import Adapter
from agent.manager.reasons import suspect, way_of, why
from agent.manager.refusals import refusal
from agent.manager.upload import CHUNK_BYTES, Body
from agent.metrics import Metrics
from agent.protocol.payloads import SECRET
from agent.text import hidden

KEY_HEADER = "X-AGENT-KEY"
# uvicorn closes an idle connection after 5 s, and a POST into a closing connection is lost.
MAX_IDLE_SECONDS = 2.0
MAX_ANSWER_BYTES = 1024**2
# So much of the deadline, and so many seconds, may pass until TCP has connected to an address: then
# it is clear who is silent, and the name's next address has its turn. SYNs go at 0, 1, 3 and 7 s.
CONNECT_SHARE, CONNECT_TAKES = 0.45, 8.0
# A secret of a payload, in a refusal that has the task: as JSON, and as JSON or Python in a text.
_NAMES = "|".join(SECRET)
_INNER = rf"""(["'](?:{_NAMES})\\*["']\s*:\s*(\\*["']))(?:[^\\"']+|(?!\3)(?:["']|\\+.))*"""
_SECRET = re.compile(rf'("(?:{_NAMES})"\s*:\s*")(?:[^"\\]+|\\.)*|{_INNER}'.encode())

log = structlog.get_logger()


@dataclass(frozen=True)
class Answer:
    """An answer. `whole` is False when it has more than MAX_ANSWER_BYTES."""

    content: bytes
    headers: Mapping[str, str]
    whole: bool

    @property
    def is_cut_short(self) -> bool:
        """Whether its end is missing, and nothing but the end of the connection said where it is.

        An answer that has a length or chunks, and less than that, is no answer at all.
        """
        has_end = "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        return self.whole and not has_end and not self.content.rstrip().endswith(b"}")


class Transport:
    """Sends requests of any greenlets to one Manager; `suspect` says who else may have answered."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._idle: list[tuple[Adapter, float]] = []
        self.suspect = partial(suspect, url=config.manager_url)

    def call(
        self, path: str, data: bytes | Body, headers: Mapping[str, str], deadline: float
    ) -> Answer:
        """Send a request and return its answer, which is a 200.

        Raises the ManagerError that stands for any other answer, or for none.
        """
        status, answer = self.ask(path, data, headers, deadline)
        if status != 200:
            # It may repeat the key and the payload, and an answer to a result is kept on the disk.
            content = _without(headers.get(KEY_HEADER, ""), answer.content)
            raise refusal(path, status, content, answer.headers, self.suspect(status))
        return answer

    def ask(
        self, path: str, data: bytes | Body, headers: Mapping[str, str], deadline: float
    ) -> tuple[int, Answer]:
        """Send a request, a GET if there is no data; the status and content of whatever answers.

        `deadline` is in seconds, for the whole call; a Body restarts it with each piece that the
        Manager takes. Raises ManagerAway if nobody answers.
        """
        began, status = time.monotonic(), 0
        try:
            request = self._request(path, data, headers)
            status, answer = self._exchange(path, request, deadline)
            return status, answer
        except (requests.RequestException, HTTPError, OSError, UnicodeError) as error:
            words = why(error, self._config.manager_url)
            raise ManagerAway(f"{path}: {words}") from error
        finally:
            seconds = time.monotonic() - began
            self._metrics.count_call(path.rpartition("/")[2], status, seconds)
            milliseconds = round(seconds * 1000, 1)
            log.debug("request", path=path, status=status or "none", milliseconds=milliseconds)

    def _exchange(
        self, path: str, request: requests.PreparedRequest, deadline: float
    ) -> tuple[int, Answer]:
        # Around the whole request: requests' own timeout is for each read.
        limit, content = gevent.Timeout.start_new(deadline), bytearray()

        def restarting(body: Body) -> Iterator[bytes]:
            nonlocal limit
            for piece in body:
                # Its own `start` would resume what was left.
                limit.close()
                limit = gevent.Timeout.start_new(deadline)
                yield piece

        if isinstance(request.body, Body):
            request.body = restarting(request.body)
        try:
            adapter = self._take_adapter()
            times = min(deadline * CONNECT_SHARE, CONNECT_TAKES), None
            with adapter.send(request, True, times, proxies=adapter.proxies) as response:
                for chunk in response.iter_content(CHUNK_BYTES):
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        break
        except gevent.Timeout as timeout:
            if timeout is not limit:
                raise
            whom = way_of(self._config.manager_url)
            raise ManagerAway(f"{path}: no answer within {deadline:g} s from {whom}") from None
        finally:
            limit.close()
        if whole := len(content) <= MAX_ANSWER_BYTES:
            self._idle.append((adapter, time.monotonic()))
        return response.status_code, Answer(bytes(content), response.headers, whole)

    def _request(
        self, path: str, data: bytes | Body, headers: Mapping[str, str]
    ) -> requests.PreparedRequest:
        """A copy of a request whose URL is already parsed: parsing would be a sixth of a call."""
        request = self._to_manager.copy()
        request.method = "POST" if data else "GET"
        assert request.url
        request.url = request.url.rstrip("/") + path
        request.headers.update(headers)
        request.prepare_body(data, None)
        return request

    @cached_property
    def _to_manager(self) -> requests.PreparedRequest:
        agent = {"User-Agent": f"iperf-agent/{__version__}"}
        return requests.Request("GET", self._config.manager_url, headers=agent).prepare()

    def _take_adapter(self) -> Adapter:
        """One whose connection was in use a moment ago, or one without a connection."""
        # The oldest come first. Only the newest is used again, so that all must be looked at here.
        while self._idle and time.monotonic() - self._idle[0][1] >= MAX_IDLE_SECONDS:
            self._idle.pop(0)[0].close()
        return self._idle.pop()[0] if self._idle else Adapter(self._config)


def _without(key: str, content: bytes) -> bytes:
    """The content without the key and the secrets of a payload; it may be no UTF-8."""
    text = hidden(key, content.decode(errors="surrogateescape"))
    return _SECRET.sub(rb"\1\2[hidden]", text.encode(errors="surrogateescape"))
