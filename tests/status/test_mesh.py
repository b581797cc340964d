"""A mesh of peers: what a scrape costs the agent, which labels it gets, and which results stay."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from msgspec import Raw
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from agent.iperf3.verdict import last_served
from agent.metrics import RESULTS_KEPT, STOPPED_KEPT, Metrics
from agent.peers import PEERS_KEPT
from agent.protocol import Outcome, Report, Task
from agent.registry import CANCELED, KILLED, RETIRES
from agent.status.prometheus import Scrape
from agent.text import to_json
from tests.support.harness import ROOT, Bench, free_port, hub_gaps
from tests.support.status_page import ask

CLIENT, SERVER = "iperf_client_run", "iperf_server_start"
FIGURES = ("sent", "received", "retransmits", "rtt_ms", "base_ms", "retransmitted_share")


class _Mesh(Scrape):
    """Only what is exported of the last tests."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(cast(Any, SimpleNamespace(metrics=metrics)), cast(Any, None))

    def collect(self) -> Iterator[Metric]:
        """Those alone."""
        yield from self._collect_figures()


def full() -> Metrics:
    """As much as an agent can have to show: every kind of test with more peers than are named."""
    metrics = Metrics()
    for peer in range(300):
        for role in ("client", "server"):
            for way in ("forward", "reverse", "bidirectional", "bidirectional_reverse"):
                for protocol in ("tcp", "udp"):
                    name = f"10.0.{peer // 250}.{peer % 250}"
                    metrics.peers.note(name, (role, way, protocol), dict.fromkeys(FIGURES, 1.0))
    return metrics


def test_others_have_their_turns_while_a_large_scrape_is_made() -> None:
    scrape = _Mesh(full())
    with hub_gaps() as gaps:
        gevent.sleep(0)
        text = scrape.export()
    assert text.count(b"\n") > (PEERS_KEPT + 1) * 16 * len(FIGURES)
    # Otherwise there would be one, at its end.
    assert len(gaps) > 3


def test_figures_of_a_test_that_ends_meanwhile_are_in_the_next_scrape() -> None:
    metrics = full()
    busy = gevent.spawn(_Mesh(metrics).export)
    gevent.sleep(0)
    assert not busy.ready()
    metrics.peers.note("late.example", ("client", "forward", "tcp"), {"sent": 1.0})
    assert b"late.example" not in busy.get()
    assert b"late.example" in _Mesh(metrics).export()


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        (b'"a\\"} 1\\n\\\\\\u00e9"', 'a"} 1\n\\\u00e9'),
        (b'"' + b"x" * 10_000 + b'"', "x" * 64),
        (b"[1]", "other"),
        (b"null", "other"),
    ],
    ids=["quotes", "long", "a list", "nothing"],
)
def test_whatever_a_server_calls_its_client_the_metrics_can_be_read(
    host: bytes, shown: str
) -> None:
    document = (ROOT / "tests/iperf3/data/3.12/server-tcp-ipv6.stdout").read_bytes()
    figures = last_served(
        document.replace(b'"::1",\n\t\t\t"port":\t60976', host + b', "port": 60976')
    )
    metrics, task = Metrics(), Task(1, SERVER, Raw(to_json({"port": 1})))
    outcome = Outcome("succeeded", Report(), figures=figures.figures, final=False)
    metrics.count_outcome(task, outcome, 1.0)
    text = _Mesh(metrics).export().decode()
    found = [
        sample.labels.get("peer")
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    assert set(found) == {shown, None}


def test_a_kill_all_of_hundreds_pushes_no_result_out() -> None:
    metrics = Metrics()
    for number in range(RESULTS_KEPT):
        payload = to_json({"server_ip": f"10.0.0.{number}", "port": 5201})
        metrics.count_outcome(
            Task(number, CLIENT, Raw(payload)), Outcome("succeeded", Report()), 1.0
        )
    for number in range(1000, 1300):
        ended = Outcome("succeeded", Report(ended=KILLED[1], stopped=True))
        metrics.count_outcome(Task(number, SERVER, Raw(to_json({"port": 1}))), ended, 1.0)
        report = Report(error_class=KILLED[0], stopped=True)
        cut = Outcome("failed", report, stderr=f"{KILLED[1]}; cut short")
        metrics.count_outcome(Task(number + 1000, CLIENT), cut, 1.0)
    metrics.count_outcome(Task(3000, "kill_all"), Outcome("succeeded", Report()), 1.0)
    ids = [row.task_id for row in metrics.results if row.status == "succeeded"]
    assert ids == list(range(RESULTS_KEPT))
    assert len(metrics.results) == RESULTS_KEPT + STOPPED_KEPT


@pytest.mark.parametrize("words", [KILLED[1], CANCELED[1], RETIRES[1], "", "in other words"])
def test_what_a_person_has_ended_is_told_from_what_went_wrong(words: str) -> None:
    """By no word of it: iperf3 may say the same ones."""
    metrics = Metrics()
    for stopped in (True, False):
        outcome = Outcome("failed", Report(stopped=stopped), stderr=f"{words}; cut short")
        metrics.count_outcome(Task(1, CLIENT), outcome, 1.0)
    metrics.count_outcome(Task(2, "kill_all"), Outcome("failed", Report(), stderr="bad"), 1.0)
    found = [row.status for row in metrics.results]
    assert found == ["stopped", "failed", "failed"]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(180)
def test_an_agent_that_tests_300_peers_shows_200_and_the_others_as_one(bench: Bench) -> None:
    status, peers = free_port(), [
        f"127.0.{1 + number // 150}.{number % 150}" for number in range(300)
    ]
    ports = [free_port() for _ in range(4)]
    agent = bench.agent(STATUS_ADDRESS=f"127.0.0.1:{status}")
    agent.wait_for("status page")
    for port in ports:
        bench.ended(bench.task(SERVER, port=port))

    def run(first: int) -> None:
        for peer in peers[first :: len(ports)]:
            given: dict[str, Any] = {"bytes": 100_000, "bind": peer, "retry_delay_seconds": 0.1}
            bench.ended(bench.task(CLIENT, server_ip=peer, port=ports[first], **given))

    gevent.joinall([gevent.spawn(run, first) for first in range(len(ports))], raise_error=True)
    text = ask(f"http://127.0.0.1:{status}", "/metrics").body.decode()
    name = "iperf_agent_last_test_timestamp_seconds"
    (family,) = [each for each in text_string_to_metric_families(text) if each.name == name]
    shown = {each.labels["peer"] for each in family.samples if each.labels["role"] == "client"}
    assert len(shown) == PEERS_KEPT + 1 and "other" in shown
    assert set(peers[-100:]) < shown
