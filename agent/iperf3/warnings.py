"""What a reader should know before trusting the figures of a test."""

from collections.abc import Iterator

from agent.iperf3.features import OTHER_COUNT, THREADED, Features
from agent.iperf3.summary import Summary, Sums
from agent.protocol import Cause, Figures, Flow, Report
from agent.quantities import rate

# In per cent of one core; iperf3 measures over the whole test, its start and end included.
_BUSY_CORE = 95.0
# The share of the time in which a thread runs or waits for a core, when that limits it.
_BUSY_THREAD = 0.95
# A test that reached this share of its bitrate was limited by nothing else: 3.16 and 3.17 spin.
REACHED = 0.95
# In seconds: what a shorter test says of a CPU is about its start and its end.
_MOMENT = 0.5
# In per cent: below it, loss says little about a test of some seconds.
_MUCH_LOSS = 1.0
# A share of the datagrams: fewer may be on their way when a test ends.
_UNDER_WAY = 0.1
# A test that ends by itself has at least this share of its planned time.
_FULL_LENGTH = 0.9
# As a share of the datagrams: counts that differ by more contradict each other.
_SLACK = 0.01
# As a share of the bitrate, and of the time of a test: what is beyond it has a warning.
_NOT_KEPT, _OVERTIME = 1.25, 0.05
_CPU = (Cause.SENDER_CPU, Cause.RECEIVER_CPU)


def warnings_about(
    summary: Summary, figures: Figures, features: Features, report: Report
) -> list[str]:
    """One sentence for each reason to doubt the figures of a document.

    `features` is of the iperf3 that wrote it. The report may have the shares of the time that its
    busiest thread ran and waited for a core; of the other side nobody knows them. What a diagnosis
    says is not said again.
    """
    found = [
        *rate_warnings(figures),
        *_cpu_warnings(summary, figures, features, report),
        *_loss_warnings(summary, figures, features),
    ]
    if not is_cut_short(summary):
        return found + _silence_warnings(summary, figures)
    # It has no report from the receiver: no reason for a second warning.
    times = f"{summary.seconds:.1f} s of {summary.asked.duration:.0f} s"
    return [*found, f"The test was cut short: {times}."]


def rate_warnings(figures: Figures) -> Iterator[str]:
    """What to know of the rates of a test, at either end."""
    most, asked = max(each.rate for each in figures.flows), figures.asked
    if asked and most > _NOT_KEPT * asked:
        words = f"ran at {rate(most)}, though {rate(asked)} were asked for"
        yield f"The test {words}: the sender's iperf3 did not keep to the bitrate."
    took, late = figures.seconds, figures.overtime or 0.0
    if late > _OVERTIME * took:
        looked = f"iperf3 looked only each {late:.3g} s whether all bytes were out"
        words = f"the test may have been over so much before the end of its {took:.3g} s"
        yield f"{looked}: {words}, and the rate be higher than {rate(figures.rate)}."


def is_cut_short(summary: Summary) -> bool:
    """Whether a test ended long before its planned time."""
    planned, took = summary.asked.duration or 0.0, summary.seconds
    return took is not None and took < _FULL_LENGTH * planned


def _cpu_warnings(
    summary: Summary, figures: Figures, features: Features, report: Report
) -> Iterator[str]:
    cpu, asked = summary.end.cpu_utilization_percent, summary.asked
    rates = figures.sent or 0.0, figures.received or 0.0
    asked_for = figures.asked or 0.0
    reached = asked_for and REACHED * asked_for <= max(rates) <= _NOT_KEPT * asked_for
    if cpu is None or reached or (summary.seconds or _MOMENT) < _MOMENT:
        return
    here, there = ("server", "client") if summary.is_servers else ("client", "server")
    limit = "the CPU and not the network may have limited the test."
    own, other = cpu.host_total or 0.0, cpu.remote_total or 0.0
    thread = report.host.get("iperf3_busiest_thread")
    diagnoses = (report.diagnosis, report.diagnosis_bidir_reverse)
    # Each side knows its own only.
    is_said = any(found and found.limited_by in _CPU for found in diagnoses)
    if features.release < THREADED:
        if own >= _BUSY_CORE and not is_said:
            why = f"iperf3 {features.version} does all its work in one thread"
            yield f"The {here} used {own:.0f} % of a core, and {why}: {limit}"
    elif thread and sum(thread.values()) >= _BUSY_THREAD and not is_said:
        ran, waited = thread["run"] * 100, thread["waited"] * 100
        shares = f"ran {ran:.0f} % of the time and waited {waited:.0f} % for a core"
        yield f"The {here}'s busiest thread {shares}: {limit}"
    if other < _BUSY_CORE:
        return
    if (asked.num_streams or 1) > 1 or asked.bidir:
        # The document does not say: it may be one thread, which is busy, or many, which are not.
        limit = "whether that limited the test is not known here."
    yield f"The {there} used {other:.0f} % of a core: {limit}"


def _loss_warnings(summary: Summary, figures: Figures, features: Features) -> Iterator[str]:
    if summary.asked.omit:
        cause = "before 3.13, iperf3 also counts what was lost in the omitted seconds"
    elif features.release >= OTHER_COUNT:
        cause = "the server's iperf3 is older than 3.13, whose count a newer one misreads"
    else:
        cause = "it does not fit what the receiver got"
    for flow, said in _with_told(summary, figures):
        if flow.carried == 0:
            continue
        lost, packets = flow.lost_packets or 0.0, flow.packets or 0.0
        if abs(lost - (said.lost_packets or 0.0)) > _SLACK * packets:
            words = f"{said.lost_packets or 0:.0f} of {said.packets or 0:.0f} datagrams were lost"
            yield f"iperf3 says that {words}, which is wrong: {cause}."
        if (percent := flow.lost_percent or 0.0) >= _MUCH_LOSS:
            counts = f"{lost:.0f} of {packets:.0f}"
            yield f"The receiver lost {percent:.1f} % of the datagrams ({counts})."
        sent = (flow.sent_bytes or 0.0) / (summary.asked.blksize or 1.0)
        if packets and sent - packets > sent * _UNDER_WAY:
            count = f"{sent - packets:.0f} of {sent:.0f}"
            yield f"The last {count} datagrams had not arrived at the end: no loss counts them."


def _silence_warnings(summary: Summary, figures: Figures) -> list[str]:
    # A client of iperf3 3.9 has one sum for UDP, without a jitter if no datagram was counted.
    is_single = summary.end.sum_sent is None and not summary.is_servers
    return [
        f"The sender sent {flow.sent_bytes:.0f} bytes and the receiver reports none."
        for flow, told in _with_told(summary, figures)
        if flow.sent_bytes and (not flow.carried or (is_single and told.jitter_ms == 0))
    ]


def _with_told(summary: Summary, figures: Figures) -> Iterator[tuple[Flow, Sums]]:
    """Each flow, and what iperf3 says of a UDP receiver."""
    end = summary.end
    return zip(figures.flows, (end.sum or Sums(), end.sum_bidir_reverse or Sums()))
