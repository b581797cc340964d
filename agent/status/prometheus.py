"""The metrics in Prometheus' words.

The names follow its conventions; docs/metrics.md has them in a table that a test compares.
"""

import resource
import time
from collections.abc import Callable, Iterable, Iterator

import gevent
import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from agent import __version__
from agent.metrics import Histogram
from agent.protocol import Figures
from agent.registry import KINDS
from agent.status.loop_lag import LoopLag
from agent.status.snapshot import View

CONTENT_TYPE = CONTENT_TYPE_LATEST
_PREFIX = "iperf_agent_"


class Exposition(Collector):
    """Collects at the moment of each scrape; nothing is counted here."""

    def __init__(self, view: View, lag: LoopLag) -> None:
        self._view = view
        self._lag = lag
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """The whole exposition."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what is there is seen when it is collected."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric of the agent."""
        yield from self._agent()
        yield from self._tasks()
        yield from self._manager()
        yield from self._outbox()
        yield from _figures(self._view.context.metrics.figures)
        yield from self._resources()

    def _agent(self) -> Iterator[Metric]:
        context = self._view.context
        about = "Version of the agent and of the iperf3 it found"
        info = GaugeMetricFamily(f"{_PREFIX}info", about, labels=["version", "iperf3_version"])
        info.add_metric([__version__, context.iperf3.version], 1)
        yield info
        yield _gauge("ready", "1 when a test could be run and reported", not self._view.not_ready())
        uptime = time.monotonic() - context.metrics.born
        yield _gauge("uptime_seconds", "Time since the agent started", uptime)
        yield _gauge(
            "state_writable",
            "1 unless the state directory is in trouble",
            not context.state.trouble,
        )

    def _tasks(self) -> Iterator[Metric]:
        context = self._view.context
        running = GaugeMetricFamily(
            f"{_PREFIX}tasks_running", "Children that run now", labels=["type"]
        )
        entries = context.registry.entries()
        for task_type, kind in KINDS.items():
            count = sum(1 for entry in entries if entry.pid and entry.kind == kind)
            running.add_metric([task_type], count)
        yield running
        rates = [entry.bits_per_second or 0.0 for entry in entries]
        yield _gauge("running_bits_per_second", "Sum of the rates of running tests", sum(rates))
        ended = CounterMetricFamily(
            f"{_PREFIX}tasks", "Tasks that ended", labels=["type", "outcome", "error_class"]
        )
        for labels, count in context.metrics.outcomes.items():
            ended.add_metric(labels, count)
        yield ended
        exits = CounterMetricFamily(
            f"{_PREFIX}child_exits", "Children that ended, and why", labels=["type", "reason"]
        )
        for kind_and_reason, count in context.metrics.child_exits.items():
            exits.add_metric(kind_and_reason, count)
        yield exits
        yield _histograms(
            "task_duration_seconds", "From claim to outcome", "type", context.metrics.task_seconds
        )
        yield _histogram(
            "task_queue_wait_seconds", "From claim to iperf3's start", context.metrics.wait_seconds
        )

    def _manager(self) -> Iterator[Metric]:
        metrics = self._view.context.metrics
        requests = CounterMetricFamily(
            f"{_PREFIX}manager_requests", "Calls to the Manager", labels=["call", "status"]
        )
        for (call, status), count in metrics.requests.items():
            requests.add_metric([call, str(status) if status else "none"], count)
        yield requests
        yield _histograms(
            "manager_request_duration_seconds",
            "How long calls to the Manager took, a held claim included",
            "call",
            metrics.request_seconds,
        )
        heard_ago = self._view.heard_ago()
        if heard_ago is not None:
            yield _gauge("heartbeat_age_seconds", "Since the last answered heartbeat", heard_ago)
        yield _histogram(
            "heartbeat_lateness_seconds",
            "How much after its time each heartbeat was begun",
            metrics.heartbeat_lateness,
        )

    def _outbox(self) -> Iterator[Metric]:
        outbox = self._view.context.outbox
        yield _gauge("outbox_messages", "Messages that the Manager does not have", len(outbox))
        yield _gauge("outbox_oldest_age_seconds", "Age of the oldest of them", outbox.oldest())
        yield _gauge("outbox_bytes", "Size of their documents", outbox.size())
        yield _gauge("rejected_results", "Results set aside in rejected/", outbox.rejected())

    def _resources(self) -> Iterator[Metric]:
        own = psutil.Process()
        cpu = own.cpu_times()
        yield _counter("cpu_seconds", "CPU time of the agent", cpu.user + cpu.system)
        yield _gauge("resident_memory_bytes", "Memory of the agent", own.memory_info().rss)
        yield _gauge("open_fds", "Open descriptors of the agent", own.num_fds())
        seconds, resident = _children(
            [entry.pid for entry in self._view.context.registry.entries()]
        )
        yield _counter("children_cpu_seconds", "CPU time of all its children so far", seconds)
        yield _gauge("children_resident_memory_bytes", "Memory of those that run", resident)
        yield _histogram("hub_lag_seconds", "How late the event loop is", self._lag.seconds)


def _children(pids: list[int]) -> tuple[float, int]:
    """CPU seconds of the children, ended and running, and the memory of those that run."""
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


def _figures(last: dict[tuple[str, str], Figures]) -> Iterator[Metric]:
    """What the last client tests measured; nothing before the first."""
    throughput = GaugeMetricFamily(
        f"{_PREFIX}last_throughput_bits_per_second",
        "Of the last client test, at its sender and its receiver",
        labels=["direction", "protocol", "side"],
    )
    for kind, figures in last.items():
        for side, value in (("sender", figures.sent), ("receiver", figures.received)):
            if value is not None:
                throughput.add_metric([*kind, side], value)
    yield throughput
    others: list[tuple[str, str, Callable[[Figures], float | None], float]] = [
        ("last_retransmits", "TCP segments sent again in it", lambda f: f.retransmits, 1),
        ("last_jitter_seconds", "UDP jitter in it", lambda f: f.jitter_ms, 1e-3),
        ("last_lost_ratio", "UDP datagrams lost in it", lambda f: f.lost_percent, 1e-2),
    ]
    for name, about, read, factor in others:
        family = GaugeMetricFamily(_PREFIX + name, about, labels=["direction", "protocol"])
        for kind, figures in last.items():
            if (found := read(figures)) is not None:
                family.add_metric(kind, found * factor)
        yield family


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, about, value=float(value))


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, about, value=value)


def _histogram(name: str, about: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(_PREFIX + name, about)
    family.add_metric([], _buckets(histogram), histogram.sum)
    return family


def _histograms(name: str, about: str, label: str, histograms: dict[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(_PREFIX + name, about, labels=[label])
    for value, histogram in histograms.items():
        family.add_metric([value], _buckets(histogram), histogram.sum)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus counts in each bucket what is in the ones below it too."""
    bounds = [*map(str, histogram.bounds), "+Inf"]
    sums = []
    total = 0
    for count in histogram.counts:
        total += count
        sums.append(float(total))
    return list(zip(bounds, sums, strict=True))
