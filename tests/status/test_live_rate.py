"""The rate of a running test, which newer versions of iperf3 report while they run."""

import re

from tests.support.harness import Bench, free_port, until
from tests.support.newer_iperf3 import newer_iperf3
from tests.support.status_page import ask


def test_the_page_and_the_metrics_show_the_rate_of_a_running_test(bench: Bench) -> None:
    status, port = free_port(), free_port()
    url = f"http://127.0.0.1:{status}"
    agent = bench.agent(STATUS_ADDRESS=f"127.0.0.1:{status}", IPERF3_PATH=newer_iperf3("trixie"))
    agent.wait_for("registered")
    bench.ended(bench.task("iperf_server_start", port=port))
    task = bench.task(
        "iperf_client_run", server_ip="127.0.0.1", port=port, time=30, bitrate=5 * 10**7
    )
    bench.wait(lambda: task.status == "running")

    def rates() -> list[float]:
        running = ask(url, "/status").json()["running"]
        return next((row["rates"] for row in running if row["task_id"] == task.id), [])

    until(lambda: len(rates()) >= 3)
    assert all(3 * 10**7 < rate < 7 * 10**7 for rate in rates())
    page = ask(url, "/").body.decode()
    assert re.search(r'class="rate">\d\d(\.\d)? Mbit/s', page)
    assert "Rate so far" in page
    metrics = ask(url, "/metrics").body.decode()
    assert re.search(r"iperf_agent_running_bits_per_second(\{\})? [3-7]\.\d+e\+07", metrics)
