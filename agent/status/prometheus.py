"""The agent's metrics in Prometheus's format.

A new metric needs its line here, one in the table of docs/metrics.md and a panel in the dashboard;
tests compare them. What is counted as it happens is in agent/metrics.py.
"""

import resource
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate, product
from typing import Any, cast

import gevent
import psutil
from prometheus_client import core
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from agent.metrics import Histogram
from agent.peers import Kind
from agent.protocol import Cause
from agent.registry import KINDS
from agent.status.snapshot import Snapshot
from agent.tasks.context import TaskContext
from agent.turns import await_turn

CONTENT_TYPE = CONTENT_TYPE_LATEST
_PREFIX = "iperf_agent_"
_LABELS = ("peer", "role", "direction", "protocol", "side")
_Test = tuple[str, Kind, dict[str, float]]
# Of the last tests: what it is, its key in their figures or their evidence, and its unit.
_LAST = [
    ("last_test_timestamp_seconds", "When it was reported, since 1970", "reported", 1.0),
    ("last_retransmits", "TCP segments sent again in it", "retransmits", 1.0),
    ("last_jitter_seconds", "UDP jitter in it", "jitter_ms", 1e-3),
    ("last_lost_ratio", "UDP datagrams lost in it", "lost_percent", 1e-2),
    ("last_rtt_seconds", "Round trip in it", "rtt_ms", 1e-3),
    ("last_least_rtt_seconds", "Least round trip in it", "base_ms", 1e-3),
    ("last_retransmitted_ratio", "TCP segments sent again in it", "retransmitted_share", 1.0),
]


class Scrape(Collector):
    """All metrics at one moment."""

    def __init__(self, context: TaskContext, snapshot: Snapshot) -> None:
        self._context = context
        self._metrics = context.metrics
        self._now = snapshot

    def export(self) -> bytes:
        """All metrics, as a scrape returns them."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        yield from self._collect_agent()
        yield from self._collect_tasks()
        yield from self._collect_calls()
        yield from self._collect_outbox()
        yield from self._collect_figures()

    def _collect_agent(self) -> Iterator[Metric]:
        now = self._now
        about = "Version of the agent and of the iperf3 it found"
        versions = {(now.version, now.iperf3_version): 1}
        yield _gauge("info", about, versions, "version", "iperf3_version")
        yield _gauge("ready", "1 if a test could be run and reported", not now.not_ready)
        yield _gauge("uptime_seconds", "Time since the agent started", now.uptime)
        about = "1 if the state directory can be written"
        yield _gauge("state_writable", about, not now.state_trouble)
        yield _counter("cpu_seconds", "CPU time of the agent", now.cpu_seconds)
        yield _gauge("resident_memory_bytes", "Memory of the agent", now.resident)
        yield _gauge("open_fds", "Open descriptors of the agent", psutil.Process().num_fds())
        yield _histogram("hub_lag_seconds", "Delay of the event loop", self._metrics.hub_lag)

    def _collect_tasks(self) -> Iterator[Metric]:
        metrics, rows = self._metrics, self._now.running
        running = {(each,): sum(1 for row in rows if row.type == each) for each in KINDS}
        yield _gauge("tasks_running", "Running children", running, "type")
        rates = sum(row.bits_per_second or 0.0 for row in rows)
        yield _gauge("running_bits_per_second", "Sum of the rates of running tests", rates)
        seconds, resident = _children([row.pid for row in rows])
        yield _counter("children_cpu_seconds", "CPU time of all its children so far", seconds)
        yield _gauge("children_resident_memory_bytes", "Memory of running children", resident)
        labels = ("type", "outcome", "error_class")
        yield _counter("tasks", "Tasks that ended", metrics.outcomes, *labels)
        exits = metrics.child_exits
        yield _counter("child_exits", "Children that ended, and why", exits, "type", "reason")
        durations = metrics.task_seconds
        yield _histogram("task_duration_seconds", "From claim to outcome", durations, "type")
        waits = metrics.wait_seconds
        yield _histogram("task_queue_wait_seconds", "From claim to iperf3's start", waits)

    def _collect_calls(self) -> Iterator[Metric]:
        metrics, heard_ago = self._metrics, self._now.heard_ago
        requests = {
            (call, str(status) if status else "none"): count
            for (call, status), count in metrics.requests.items()
        }
        yield _counter("manager_requests", "Calls to the Manager", requests, "call", "status")
        about = "Duration of calls to the Manager, including the time that it holds a claim"
        durations = metrics.request_seconds
        yield _histogram("manager_request_duration_seconds", about, durations, "call")
        if heard_ago is not None:
            yield _gauge("heartbeat_age_seconds", "Since the last answered heartbeat", heard_ago)
        about = "Delay of each heartbeat after its planned time"
        yield _histogram("heartbeat_lateness_seconds", about, metrics.heartbeat_lateness)

    def _collect_outbox(self) -> Iterator[Metric]:
        now, messages = self._now, self._context.outbox.messages()
        about = "Messages that the Manager does not have"
        yield _gauge("outbox_messages", about, now.outbox_messages)
        yield _gauge("outbox_oldest_age_seconds", "Age of the oldest of them", now.outbox_oldest)
        size = sum(it.end - it.start for each in messages if (it := each.document))
        yield _gauge("outbox_bytes", "Size of their documents", size)
        yield _gauge("rejected_results", "Results set aside in rejected/", now.rejected)

    def _collect_figures(self) -> Iterator[Metric]:
        """What the last tests measured; no samples before the first one."""
        tests = self._metrics.peers.tests()
        about = "Throughput of the last test, at its sender and its receiver"
        sides = {"sent": ["sender"], "received": ["receiver"]}
        yield _of_tests("last_throughput_bits_per_second", about, tests, sides)
        for name, about, key, unit in _LAST:
            yield _of_tests(name, about, tests, {key: []}, unit)
        limited = {(cause,): self._metrics.limited[cause] for cause in Cause}
        about = "Directions of tests by what limited them"
        yield _counter("tests_limited", about, limited, "cause")


def _of_tests(
    name: str, about: str, tests: list[_Test], sides: dict[str, list[str]], unit: float = 1.0
) -> Metric:
    """Figures of the tests that have them, by key, and the label `side` of each key if it has one.

    There may be 25,000 samples, so each is made when it is written, in a turn that has time left.
    """
    metric = _gauge(name, about, {})

    def samples() -> Iterator[Sample]:
        for (peer, kind, figures), key in product(tests, sides):
            if key in figures:
                await_turn()
                labels = dict(zip(_LABELS, (peer, *kind, *sides[key])))
                yield Sample(metric.name, labels, figures[key] * unit)

    metric.samples = cast(list[Sample], samples())
    return metric


def _children(pids: list[int]) -> tuple[float, int]:
    """CPU seconds of all children, ended and running, and the memory of the running ones."""
    running, resident = dict[int, float](), 0
    for pid in pids:
        gevent.sleep(0)
        try:
            child = psutil.Process(pid)
            cpu = child.cpu_times()
            resident += child.memory_info().rss
        except psutil.Error:
            continue
        running[pid] = cpu.user + cpu.system
    # Without a turn for others in between: one that was reaped meanwhile is in the first sum alone.
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    left = sum(seconds for pid, seconds in running.items() if psutil.pid_exists(pid))
    return ended.ru_utime + ended.ru_stime + left, resident


def _simple(
    family: type[core.GaugeMetricFamily] | type[core.CounterMetricFamily],
    name: str,
    about: str,
    samples: float | Mapping[Any, float],
    *labels: str,
) -> Metric:
    """A metric with one number, or one for each combination of the labels' values."""
    metric = family(_PREFIX + name, about, labels=labels)
    for values, number in samples.items() if isinstance(samples, Mapping) else [((), samples)]:
        metric.add_metric(values, float(number))
    return metric


_gauge = partial(_simple, core.GaugeMetricFamily)
_counter = partial(_simple, core.CounterMetricFamily)


def _histogram(
    name: str, about: str, histograms: Histogram | Mapping[str, Histogram], *labels: str
) -> Metric:
    family = core.HistogramMetricFamily(_PREFIX + name, about, labels=labels)
    by_label = {"": histograms} if isinstance(histograms, Histogram) else histograms
    for value, histogram in by_label.items():
        # Each of Prometheus's buckets includes the lower ones.
        bounds = [*map(str, histogram.bounds), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
        family.add_metric([value] if labels else [], buckets, histogram.sum)
    return family
