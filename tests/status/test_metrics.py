"""The metrics: all are documented, and the dashboard uses exactly these."""

import json
import re
import resource
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from gevent import subprocess
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from agent.errors import ErrorClass
from agent.metrics import Metrics
from agent.process.child import Ending
from agent.protocol import Cause
from agent.registry import KINDS
from agent.status import prometheus
from tests.support.harness import ROOT, until
from tests.support.status_page import Shown, ask

NAME = re.compile(r"iperf_agent_\w+")
SUFFIXES = re.compile(r"_(?:bucket|sum|count)$")
LINE = re.compile(r"\| `(\w+)` \| (\w+) \|(.*?)\| (.*) \|")


def exported(shown: Shown) -> dict[str, Metric]:
    """The metrics by their documented names."""
    text = ask(shown.url, "/metrics").body.decode()
    families = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        families[name] = family
    return families


def value(family: Metric, **labels: str) -> float:
    """The value of the one sample with these labels."""
    (found,) = [
        sample.value
        for sample in family.samples
        if sample.labels == labels and not SUFFIXES.search(sample.name)
    ]
    return float(found)


def test_the_documented_metrics_are_those_that_are_exported(shown: Shown) -> None:
    lines = LINE.findall((ROOT / "docs/metrics.md").read_text())
    documented = {
        name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in lines
    }
    found = {
        name: (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for name, family in exported(shown).items()
    }
    assert found == documented


def test_names_follow_the_conventions(shown: Shown) -> None:
    for name, family in exported(shown).items():
        assert (family.type == "counter") == name.endswith("_total")
        assert "_ms" not in name and "_mb" not in name
        assert family.documentation


def test_the_numbers_match_the_tests_that_ran(shown: Shown) -> None:
    found = exported(shown)
    client = "iperf_client_run"
    tasks = found["iperf_agent_tasks_total"]
    assert value(tasks, type=client, outcome="succeeded", error_class="") == 2
    assert value(tasks, type=client, outcome="failed", error_class="refused") == 1
    assert value(found["iperf_agent_tasks_running"], type="iperf_server_start") == 1
    assert value(found["iperf_agent_tasks_running"], type=client) == 0
    assert value(found["iperf_agent_child_exits_total"], type="client", reason="ended") == 3
    assert value(found["iperf_agent_manager_requests_total"], call="register", status="200") == 1
    throughput = found["iperf_agent_last_throughput_bits_per_second"]
    tcp = {"role": "client", "peer": "127.0.0.1", "direction": "forward", "protocol": "tcp"}
    udp = {**tcp, "protocol": "udp"}
    served = {**tcp, "role": "server"}
    assert value(throughput, **tcp, side="receiver") > 10**6
    assert value(throughput, **served, side="receiver") > 10**6
    assert 0 <= value(found["iperf_agent_last_lost_ratio"], **udp) <= 1
    assert value(found["iperf_agent_last_rtt_seconds"], **tcp) > 0
    moments = found["iperf_agent_last_test_timestamp_seconds"]
    assert abs(value(moments, **tcp) - time.time()) < 3600
    # That which was refused has measured nothing.
    kinds = {(each.labels["role"], each.labels["protocol"]) for each in moments.samples}
    assert kinds == {(role, kind) for role in ("client", "server") for kind in ("tcp", "udp")}
    limited = found["iperf_agent_tests_limited_total"]
    # One for each side.
    assert sum(sample.value for sample in limited.samples) == 4
    assert {sample.labels["cause"] for sample in limited.samples} == {*Cause}
    waits = found["iperf_agent_task_queue_wait_seconds"].samples
    assert [sample.value for sample in waits if sample.name.endswith("_count")] == [4]
    assert value(found["iperf_agent_ready"]) == 1


def test_what_may_happen_begins_with_0_as_prometheus_sees_no_increase_from_nothing_to_1() -> None:
    new = Metrics()
    failures = {(kind, "failed", each) for kind in KINDS for each in ErrorClass}
    assert failures < new.outcomes.keys() and {*new.outcomes.values()} == {0}
    assert {*new.child_exits} == {
        (kind, each.name.lower()) for kind in KINDS.values() for each in Ending
    }


def test_labels_are_bounded_whatever_the_manager_sends(shown: Shown) -> None:
    bench = shown.bench
    for number in range(3):
        bench.ended(bench.task(f"odd {number}"))

    def found() -> Metric:
        return exported(shown)["iperf_agent_tasks_total"]

    # On a busy host an answer may be given that was made before.
    until(lambda: "other" in {sample.labels["type"] for sample in found().samples})
    until(lambda: value(found(), type="other", outcome="failed", error_class="unsupported") == 3)
    types = {sample.labels["type"] for sample in found().samples}
    assert types <= {"iperf_server_start", "iperf_client_run", "kill_all", "other"}


def test_a_server_that_never_listened_is_among_the_children_that_ended(shown: Shown) -> None:
    with socket.create_server(("", 0)) as holder:
        port = holder.getsockname()[1]
        shown.bench.ended(shown.bench.task("iperf_server_start", port=port))

    def counted() -> list[dict[str, str]]:
        samples = exported(shown)["iperf_agent_child_exits_total"].samples
        return [sample.labels for sample in samples if sample.value == 1]

    until(lambda: {"type": "server", "reason": "ended"} in counted())


@pytest.mark.process
def test_the_cpu_of_children_never_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    """One ends, and one is reaped, while the others take their turns."""
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2)]
    pids = [each.pid or 0 for each in busy]

    def end(_: float = 0) -> None:
        for each in busy:
            each.kill()
            each.wait()

    try:
        until(lambda: all(psutil.Process(pid).cpu_times().user >= 0.1 for pid in pids))
        before, _ = prometheus._children(pids)
        turns = iter([lambda _: None, end])
        # Not gevent's own: the dev Manager of this process sleeps as well.
        slow = SimpleNamespace(sleep=lambda seconds: next(turns)(seconds))
        monkeypatch.setattr(prometheus, "gevent", slow)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        after, _ = prometheus._children(pids)
    finally:
        end()
    assert before <= after
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after == pytest.approx(spent.ru_utime + spent.ru_stime) and spent != ended


def _expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, item in node.items():
            if name in ("expr", "query") and isinstance(item, str):
                yield item
            yield from _expressions(item)
    elif isinstance(node, list):
        for item in node:
            yield from _expressions(item)


def test_the_dashboard_uses_all_metrics_and_no_others(shown: Shown) -> None:
    dashboard = json.loads((ROOT / "deployment/grafana/dashboard.json").read_text())
    used = {name for text in _expressions(dashboard) for name in NAME.findall(text)}
    known = exported(shown)
    plain = {name if name in known else SUFFIXES.sub("", name) for name in used}
    assert plain == set(known)
