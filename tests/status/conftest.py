"""An agent with a status page that has run some tests, shared by the tests here."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from agent.dev.store.store import Store
from tests.support.harness import Bench, free_port, until
from tests.support.status_page import Shown, ask


@pytest.fixture(name="shown", scope="package")
def fixture_shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """The agent after a TCP test, a UDP test and a failed test; its server still runs."""
    bench = Bench(Store(), tmp_path_factory.mktemp("status"))
    bench.manager.start()
    status, port = free_port(), free_port()
    try:
        agent = bench.agent(STATUS_ADDRESS=f"127.0.0.1:{status}")
        agent.wait_for("status page")
        server = bench.ended(bench.task("iperf_server_start", port=port))
        here: dict[str, Any] = {"server_ip": "127.0.0.1", "time": 1, "max_retries": 0}
        bench.ended(bench.task("iperf_client_run", port=port, interval=0.1, **here))
        bench.wait(lambda: b'"end"' in bytes(server.result))
        bench.ended(bench.task("iperf_client_run", port=port, udp=True, bitrate=10**7, **here))
        bench.ended(bench.task("iperf_client_run", port=1, **here))
        url = f"http://127.0.0.1:{status}"
        # The Manager has a result a moment before the agent has the answer, and the server's
        # result of a test may come after the client's.
        until(lambda: _settled(ask(url, "/status").json()))
        yield Shown(bench, agent, url, port)
    finally:
        bench.close()


def _settled(status: dict[str, Any]) -> bool:
    """Whether three results of clients and two of their server are there and delivered."""
    told = Counter(result["type"] for result in status["results"])
    seen = (told["iperf_client_run"], told["iperf_server_start"], status["outbox_messages"])
    return seen == (3, 2, 0)
