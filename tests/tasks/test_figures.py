"""What agents of two versions of iperf3 make of tests: in results, pages and metrics."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import requests

from agent.dev.store import records
from agent.dev.store.records import ManagedTask
from agent.dev.store.store import Store
from agent.metrics import Metrics
from agent.protocol import Cause, Diagnosis, Figures, Flow, Outcome, Report, Task
from agent.quantities import rate
from tests.support.harness import ROOT, Bench, free_port
from tests.support.lossy_path import lossy_path
from tests.support.newer_iperf3 import newer_iperf3
from tests.support.status_page import ask

STATUS = free_port()
# Datagrams of 1000 bytes, 625 a second.
LOSSY = {"udp": True, "length": 1000, "bitrate": 5_000_000, "server_ip": "127.0.0.1"}


@pytest.fixture(name="fleet", scope="module")
def fixture_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Agent a1 with the newest iperf3, and a2 with the installed one."""
    bench = Bench(Store(), tmp_path_factory.mktemp("fleet"))
    bench.manager.start()
    try:
        bench.agent(IPERF3_PATH=newer_iperf3("sid"), STATUS_ADDRESS=f"127.0.0.1:{STATUS}")
        bench.agent(number=2)
        for agent in bench.agents:
            agent.wait_for("registered")
        yield bench
    finally:
        bench.close()


def run(
    bench: Bench, keep_each: int, **options: Any
) -> tuple[records.Test, ManagedTask, ManagedTask]:
    """A test from a1 to a2 over a path that loses datagrams; the client's task and the server's."""
    port = free_port()
    with lossy_path(port, keep_each) as way:
        exercise = bench.store.exercises.create("mixed", 10)
        given = {**LOSSY, "port": way, "client_delay_seconds": 0.5, **options}
        how: dict[str, Any] = {"udp": True, "time_seconds": 2, "options": given}
        new = bench.store.exercises.add_test(exercise.id, 2, 1, port, **how)
        bench.store.exercises.start(exercise.id)
        client = bench.ended(new.client_task)
        bench.wait(lambda: b'"ended"' in bytes(new.server_task.result))
    return new.test, client, new.server_task


@pytest.mark.process
def test_the_loss_of_a_mixed_fleet_is_the_same_wherever_it_is_shown(fleet: Bench) -> None:
    test, client, server = run(fleet, keep_each=10)
    assert client.status == "succeeded", client.error
    result, seen = fleet.result(client), fleet.result(server)
    assert result["end"]["sum"]["lost_percent"] == 0, "iperf3's document stays as it is"
    truth = seen["end"]["sum"]["lost_percent"]
    assert 80 < truth < 95
    figures = result["agent"]["figures"]
    assert figures["lost_percent"] == pytest.approx(truth, abs=0.5)
    assert "the server's iperf3 is older than 3.13" in result["agent"]["warnings"][0]
    assert figures["received"] == result["end"]["sum_received"]["bits_per_second"]
    assert seen["agent"]["figures"]["received"] == pytest.approx(figures["received"], rel=0.01)
    shown = [f"{figures['lost_percent']:.3g} %", rate(figures["received"])]
    url = f"http://127.0.0.1:{STATUS}"
    row = re.findall(f"<tr>.*?{client.id}, client.*?</tr>", ask(url, "/").body.decode(), re.S)[0]
    assert all(words in row for words in shown)
    page = requests.get(
        f"{fleet.manager.url}/?test={test.id}", headers={"Accept": "text/html"}, timeout=10
    )
    status = re.search(r'role="status".*?</p>', page.text, re.S)
    listed = re.search(rf'<a id="test-{test.id}".*?</tr>', page.text, re.S)
    for part in (status, listed):
        assert part and all(words in part[0] for words in shown)
    results = ask(url, "/status").json()["results"]
    assert [each["figures"] for each in results if each["task_id"] == client.id] == [figures]
    metrics = ask(url, "/metrics").body.decode()
    labels = r'\{direction="forward",peer="[^"]+",protocol="udp",role="client"\} '
    (lost,) = re.findall(rf"^iperf_agent_last_lost_ratio{labels}(.*)$", metrics, re.MULTILINE)
    assert float(lost) == pytest.approx(truth / 100, abs=0.005)


@pytest.mark.process
def test_a_test_both_ways_has_two_headlines_everywhere(fleet: Bench) -> None:
    test, client, server = run(fleet, keep_each=5, bidir=True)
    figures = fleet.result(client)["agent"]["figures"]
    back = figures["backward"]
    assert fleet.result(server)["agent"]["figures"]["direction"] == "bidirectional"
    words = f"{rate(figures['received'])}, back {rate(back['received'])}"
    url = f"http://127.0.0.1:{STATUS}"
    assert words in ask(url, "/").body.decode()
    page = requests.get(
        f"{fleet.manager.url}/?test={test.id}", headers={"Accept": "text/html"}, timeout=10
    )
    assert page.text.count(words) == 2, "above the curve and in the list"
    metrics = ask(url, "/metrics").body.decode()
    for direction in ("bidirectional", "bidirectional_reverse"):
        labels = rf'direction="{direction}",peer="[^"]+",protocol="udp",role="client"'
        assert re.search(rf'bits_per_second{{{labels},side="receiver"}} ', metrics)


@pytest.mark.process
def test_a_test_of_which_nothing_arrives_is_no_success(fleet: Bench) -> None:
    _, client, _ = run(fleet, keep_each=0)
    assert client.status == "failed"
    assert "nothing of the" in (client.error or "") and "has arrived" in (client.error or "")
    report = fleet.result(client)["agent"]
    assert (report["error_class"], report["figures"]["lost_percent"]) == ("unreachable", 100)


@pytest.mark.process
def test_a_test_of_some_bytes_is_timed_closely_or_has_a_warning(bench: Bench) -> None:
    """Over loopback they are out long before iperf3 3.18 sees it, and no cause is made of that."""
    bench.agent(IPERF3_PATH=newer_iperf3("trixie")).wait_for("registered")
    server = bench.task("iperf_server_start", port=(port := free_port()))
    bench.wait(lambda: server.status == "succeeded")
    task = bench.task(
        "iperf_client_run", server_ip="127.0.0.1", port=port, time=10, bytes=5_000_000
    )
    bench.ended(task)
    bench.wait(lambda: b'"figures"' in bytes(server.result))
    for told in (bench.result(task)["agent"], bench.result(server)["agent"]):
        assert told["diagnosis"]["limited_by"] == "too_short"
    told = bench.result(task)["agent"]
    assert 0 < told["figures"]["overtime"] < 1
    assert any("looked only each 0.1 s" in words for words in told["warnings"])


def test_the_end_of_a_server_does_not_show_its_newest_test_once_more() -> None:
    metrics, task, figures = Metrics(), Task(1, "iperf_server_start"), Figures(received=1.0)
    for final, measured in ((False, figures), (False, Figures(received=1.0)), (True, figures)):
        outcome = Outcome("succeeded", Report(), final=final, figures=measured)
        metrics.count_outcome(task, outcome, seconds=1.0)
    shown = [row.figures is not None for row in metrics.results]
    assert shown == [True, True, False]


def test_the_documented_figures_are_those_of_the_code() -> None:
    page = (ROOT / "docs/protocol.md").read_text()
    rows = page.partition("| `agent.figures` |")[2].partition("\n\n")[0]
    documented = re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE)
    fields = [field.name for field in msgspec.structs.fields(Figures)]
    assert sorted(documented) == sorted(fields)
    assert {field.name for field in msgspec.structs.fields(Flow)} < set(documented)


def test_the_evidence_of_an_older_test_does_not_stand_beside_the_figures_of_a_newer_one() -> None:
    """One that was ended has no diagnosis."""
    metrics, task, figures = Metrics(), Task(1, "iperf_client_run"), Figures(sent=1.0)
    known = Diagnosis(Cause.UNKNOWN, False, "", {"rtt_ms": 5.0})
    metrics.count_outcome(task, Outcome("succeeded", Report(diagnosis=known), figures=figures))
    ((*_, shown),) = metrics.peers.tests()
    assert shown["rtt_ms"] == 5.0
    metrics.count_outcome(task, Outcome("failed", Report(), figures=Figures(sent=2.0)))
    ((*_, shown),) = metrics.peers.tests()
    assert shown["sent"] == 2.0 and "rtt_ms" not in shown
