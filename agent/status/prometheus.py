"""The agent's metrics in Prometheus's format.

A new metric needs its line here, one in the table of docs/metrics.md and a panel in the dashboard;
tests compare them. What is counted as it happens is in agent/metrics.py.
"""

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import gevent
import psutil
from prometheus_client import core
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from agent import __version__
from agent.metrics import Histogram
from agent.protocol import Cause, Flow
from agent.registry import KINDS
from agent.status.snapshot import AgentState

CONTENT_TYPE = CONTENT_TYPE_LATEST
_PREFIX = "iperf_agent_"
# What is known of the path of the last client tests: the key of its evidence, and the factor.
_OF_PATH = [
    ("last_rtt_seconds", "Round trip in it", "rtt_ms", 1e-3),
    ("last_least_rtt_seconds", "Least round trip in it", "base_ms", 1e-3),
    ("last_retransmitted_ratio", "TCP segments sent again in it", "retransmitted_share", 1.0),
]
# By the values of the labels.
_Samples = Mapping[Any, float]


class MetricsExporter(Collector):
    """Collects the metrics at the moment of each scrape."""

    def __init__(self, agent: AgentState, lag: Histogram) -> None:
        self._agent = agent
        self._context = agent.context
        self._metrics = agent.context.metrics
        self._lag = lag

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
        yield from self._collect_resources()

    def _collect_agent(self) -> Iterator[Metric]:
        versions = {(__version__, self._context.iperf3.version): 1}
        about = "Version of the agent and of the iperf3 it found"
        yield _gauge("info", about, versions, "version", "iperf3_version")
        is_ready = not self._agent.not_ready()
        yield _gauge("ready", "1 if a test could be run and reported", is_ready)
        uptime = time.monotonic() - self._metrics.born
        yield _gauge("uptime_seconds", "Time since the agent started", uptime)
        is_writable = not self._context.state.trouble
        yield _gauge("state_writable", "1 if the state directory can be written", is_writable)

    def _collect_tasks(self) -> Iterator[Metric]:
        metrics, entries = self._metrics, self._context.registry.entries()
        running = {
            (task_type,): sum(1 for entry in entries if entry.pid and entry.kind == kind)
            for task_type, kind in KINDS.items()
        }
        yield _gauge("tasks_running", "Running children", running, "type")
        rates = sum(entry.bits_per_second or 0.0 for entry in entries)
        yield _gauge("running_bits_per_second", "Sum of the rates of running tests", rates)
        labels = ("type", "outcome", "error_class")
        yield _counter("tasks", "Tasks that ended", metrics.outcomes, *labels)
        exits = metrics.child_exits
        yield _counter("child_exits", "Children that ended, and why", exits, "type", "reason")
        durations = metrics.task_seconds
        yield _histogram("task_duration_seconds", "From claim to outcome", durations, "type")
        waits = metrics.wait_seconds
        yield _histogram("task_queue_wait_seconds", "From claim to iperf3's start", waits)

    def _collect_calls(self) -> Iterator[Metric]:
        metrics = self._metrics
        requests = {
            (call, str(status) if status else "none"): count
            for (call, status), count in metrics.requests.items()
        }
        yield _counter("manager_requests", "Calls to the Manager", requests, "call", "status")
        about = "Duration of calls to the Manager, including the time that it holds a claim"
        durations = metrics.request_seconds
        yield _histogram("manager_request_duration_seconds", about, durations, "call")
        heard_ago = self._agent.heard_ago()
        if heard_ago is not None:
            yield _gauge("heartbeat_age_seconds", "Since the last answered heartbeat", heard_ago)
        about = "Delay of each heartbeat after its planned time"
        yield _histogram("heartbeat_lateness_seconds", about, metrics.heartbeat_lateness)

    def _collect_outbox(self) -> Iterator[Metric]:
        outbox = self._context.outbox
        yield _gauge("outbox_messages", "Messages that the Manager does not have", len(outbox))
        oldest = self._agent.outbox_oldest()
        yield _gauge("outbox_oldest_age_seconds", "Age of the oldest of them", oldest)
        size = sum(it.end - it.start for each in outbox.messages() if (it := each.document))
        yield _gauge("outbox_bytes", "Size of their documents", size)
        rejected = self._context.ledger.spool.rejected
        yield _gauge("rejected_results", "Results set aside in rejected/", rejected)

    def _collect_figures(self) -> Iterator[Metric]:
        """What the last client tests measured; no samples before the first one."""

        def last(read: Callable[[Flow], float | None], *side: str) -> dict[Any, float]:
            values = {(*test, *side): read(flow) for test, flow in self._metrics.figures.items()}
            return {test: value for test, value in values.items() if value is not None}

        labels = ("direction", "protocol")
        throughput = last(lambda f: f.sent, "sender") | last(lambda f: f.received, "receiver")
        about = "Throughput of the last client test, at its sender and its receiver"
        yield _gauge("last_throughput_bits_per_second", about, throughput, *labels, "side")
        retransmits = last(lambda f: f.retransmits)
        yield _gauge("last_retransmits", "TCP segments sent again in it", retransmits, *labels)
        jitter = last(lambda f: f.jitter_ms and f.jitter_ms / 1000)
        yield _gauge("last_jitter_seconds", "UDP jitter in it", jitter, *labels)
        lost = last(lambda f: f.lost_percent and f.lost_percent / 100)
        yield _gauge("last_lost_ratio", "UDP datagrams lost in it", lost, *labels)
        for name, about, key, factor in _OF_PATH:
            known = {way: seen.get(key) for way, seen in self._metrics.evidence.items()}
            values = {way: it * factor for way, it in known.items() if it is not None}
            yield _gauge(name, about, values, *labels)
        limited = {(cause,): self._metrics.limited[cause] for cause in Cause}
        yield _counter(
            "tests_limited", "Directions of tests by what limited them", limited, "cause"
        )

    def _collect_resources(self) -> Iterator[Metric]:
        own = psutil.Process()
        cpu = own.cpu_times()
        yield _counter("cpu_seconds", "CPU time of the agent", cpu.user + cpu.system)
        yield _gauge("resident_memory_bytes", "Memory of the agent", own.memory_info().rss)
        yield _gauge("open_fds", "Open descriptors of the agent", own.num_fds())
        seconds, resident = _children([entry.pid for entry in self._context.registry.entries()])
        yield _counter("children_cpu_seconds", "CPU time of all its children so far", seconds)
        yield _gauge("children_resident_memory_bytes", "Memory of running children", resident)
        yield _histogram("hub_lag_seconds", "Delay of the event loop", self._lag)


def _children(pids: list[int]) -> tuple[float, int]:
    """CPU seconds of all children, ended and running, and the memory of the running ones."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, resident = ended.ru_utime + ended.ru_stime, 0
    for pid in filter(None, pids):
        gevent.sleep(0)
        try:
            child = psutil.Process(pid)
            cpu = child.cpu_times()
            resident += child.memory_info().rss
        except psutil.Error:
            continue
        seconds += cpu.user + cpu.system
    return seconds, resident


def _gauge(name: str, about: str, samples: float | _Samples, *labels: str) -> Metric:
    return _filled(core.GaugeMetricFamily(_PREFIX + name, about, labels=labels), samples)


def _counter(name: str, about: str, samples: float | _Samples, *labels: str) -> Metric:
    return _filled(core.CounterMetricFamily(_PREFIX + name, about, labels=labels), samples)


def _filled(
    family: core.GaugeMetricFamily | core.CounterMetricFamily, samples: float | _Samples
) -> Metric:
    """Add the samples: one number, or one for each combination of the labels' values."""
    for values, number in samples.items() if isinstance(samples, Mapping) else [((), samples)]:
        family.add_metric(values, float(number))
    return family


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
