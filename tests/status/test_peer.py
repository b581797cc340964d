"""Who keeps a server busy: on the page of its agent, and in what a client there is told."""

from typing import Any

from gevent import subprocess

from tests.support.harness import until
from tests.support.status_page import Shown, ask


def test_a_busy_server_is_shown_with_its_client(shown: Shown) -> None:
    def server_row() -> dict[str, Any]:
        rows: list[dict[str, Any]] = ask(shown.url, "/status").json()["running"]
        return next(row for row in rows if row["type"] == "iperf_server_start")

    bench, port = shown.bench, shown.port
    until(lambda: (server_row()["peer"], server_row()["peer_since"]) == ("", ""))
    stranger = subprocess.Popen(
        ["iperf3", "-c", "::1", "-p", str(port), "-t", "60", "-b", "1M"], stdout=subprocess.PIPE
    )
    try:
        until(lambda: server_row()["peer"] == "::1")
        row = server_row()
        page = ask(shown.url, "/").body.decode()
        given: dict[str, Any] = {"port": port, "max_retries": 0}
        busy = bench.ended(bench.task("iperf_client_run", server_ip="127.0.0.1", **given))
        named = bench.ended(bench.task("iperf_client_run", server_ip="localhost", **given))
    finally:
        stranger.kill()
        stranger.wait()
    words = f"this agent's task {row['task_id']} has served ::1 since {row['peer_since']}"
    assert (busy.error or "").endswith(f"try again later; {words}")
    # Whether a name is this host's, nobody looks up.
    assert (named.error or "").endswith("try again later")
    assert f"with ::1 since {row['peer_since'][11:19]} UTC" in page
    until(lambda: not server_row()["peer"])


def test_the_log_names_the_test_of_each_result(shown: Shown) -> None:
    bench, port = shown.bench, shown.port
    given: dict[str, Any] = {"server_ip": "127.0.0.2", "port": port, "time": 1, "reverse": True}
    task = bench.ended(bench.task("iperf_client_run", parallel=2, **given))
    named: dict[str, Any] = {"port": port, "protocol": "tcp", "direction": "reverse", "streams": 2}
    line = shown.agent.wait_for("result", task_id=task.id, peer="127.0.0.2", **named)
    assert (line["status"], line["error_class"]) == ("succeeded", "")
    assert line["rate"].endswith("bit/s")
    shown.agent.wait_for("result", peer="127.0.0.1", **named)
