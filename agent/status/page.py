"""The page: an HTML document made for each request. Its script, if allowed, refreshes it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template

from agent.metrics import Reported
from agent.protocol import Figures, Flow
from agent.quantities import duration, rate
from agent.status.snapshot import Running, Snapshot

_NAMES = {
    "iperf_server_start": "server",
    "iperf_client_run": "client",
    "kill_all": "kill all",
    "other": "unknown type",
}
_NO_RESULT = '<tr><td colspan="6">None yet.</td></tr>'

_template = Template(files("agent.status").joinpath("page.html").read_text(encoding="utf-8"))


def render_page(snapshot: Snapshot) -> str:
    """The whole document."""
    return _template.substitute(
        not_ready="Not ready: " if snapshot.not_ready else "",
        name=escape(snapshot.name),
        state=_state(snapshot),
        manager_url=escape(snapshot.manager_url),
        address=escape(snapshot.address or "not known yet"),
        running="\n".join(_running(snapshot)),
        results="\n".join(map(_result, snapshot.results)) or _NO_RESULT,
        problems="\n".join(_problems(snapshot)[:10]) or "<li>Nothing.</li>",
        version=escape(snapshot.version),
        iperf3_version=escape(snapshot.iperf3_version or "missing"),
        uptime=duration(snapshot.uptime),
        memory=f"{snapshot.resident / 1024**2:.0f}",
        cpu=f"{snapshot.cpu_seconds:.1f}",
        waiting=snapshot.outbox_messages,
        now=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
    )


def _state(snapshot: Snapshot) -> str:
    ago = f"{snapshot.heard_ago or 0:.0f} s ago"
    if snapshot.not_ready:
        return f'<span class="state bad">Not ready:</span> {escape(snapshot.not_ready[0])}'
    if snapshot.silent:
        state = '<span class="state warn">The Manager is silent.</span>'
        return f"{state} It last answered a heartbeat {ago}"
    return f'<span class="state good">Connected.</span> Last heartbeat {ago}'


def _running(snapshot: Snapshot) -> Iterable[str]:
    for child in snapshot.running:
        yield f"<li>{''.join(_child(child))}</li>"
    if not snapshot.running:
        yield "<li>Nothing.</li>"
    if snapshot.waiting:
        yield f'<li class="soft">{snapshot.waiting} more waiting to start or to retry.</li>'


def _child(child: Running) -> Iterable[str]:
    what = f"{_NAMES.get(child.type, 'task')} on port {child.port}"
    yield f"<strong>Task {child.task_id}</strong>, {what}, running for {duration(child.seconds)}"
    if child.peer:
        yield f" with {escape(child.peer)} since {child.peer_since[11:19]} UTC"
    if child.bits_per_second is not None:
        yield f' <span class="rate">{rate(child.bits_per_second)}</span>'
        if child.retransmits:
            yield f' <span class="soft">{child.retransmits} retransmits</span>'
        yield _spark(child.rates, "Rate so far")
    if child.seconds_left is not None:
        whole = child.seconds + child.seconds_left
        left = f"{child.seconds_left:.0f} s left"
        values = f'max="{whole:.1f}" value="{child.seconds:.1f}"'
        yield f'<progress {values} aria-label="Task {child.task_id}">{left}</progress>'
        yield f'<span class="soft">{left}</span>'


def _result(result: Reported) -> str:
    figures = result.figures or Figures()
    tone = {"succeeded": "good", "failed": "bad"}.get(result.status, "soft")
    came = result.message if result.status == "stopped" else result.error_class or result.status
    curves = [_spark(flow.rates, "As this side saw it") for flow in figures.flows]
    limits = "<br>".join(dict.fromkeys(escape(found.words) for found in result.diagnoses))
    cells = [
        f"<td>{result.at[11:19]}</td>",
        f"<td>{result.task_id}, {_NAMES.get(result.type, 'task')}{_test(result)}</td>",
        f'<td class="{tone}">{escape(came)}</td>',
        f'<td class="number">{figures.of_each_way(Flow.headline)}</td>',
        f'<td class="number">{figures.of_each_way(_lost)}</td>',
        f'<td>{"".join(curves)}</td>',
    ]
    more = f'<tr class="more soft"><td colspan="6">{limits}</td></tr>' if limits else ""
    return f"<tr>{''.join(cells)}</tr>{more}"


def _test(result: Reported) -> str:
    """With whom a test was, and which one, in words."""
    port = f"port {result.port}" if result.port else ""
    streams = f"{result.streams} streams" if result.streams > 1 else ""
    words = [result.peer, port, result.protocol.upper(), result.direction, streams]
    return f'<br><span class="soft">{escape(", ".join(filter(None, words)))}</span>'


def _lost(flow: Flow) -> str:
    if flow.lost_percent is not None:
        jitter = "" if flow.jitter_ms is None else f", jitter {flow.jitter_ms:.2g} ms"
        return f"{flow.lost_percent:.3g} %{jitter}"
    return "" if flow.retransmits is None else f"{flow.retransmits:.0f} retransmits"


def _problems(snapshot: Snapshot) -> list[str]:
    found = [f'<span class="bad">{escape(reason)}</span>' for reason in snapshot.not_ready]
    if snapshot.outbox_messages and snapshot.outbox_oldest > 5:
        age = duration(snapshot.outbox_oldest)
        waiting = f"{snapshot.outbox_messages} messages wait for the Manager, the oldest for {age}"
        found.append(f"{waiting}. They are kept until it has them.")
    if snapshot.rejected:
        where = "in rejected/ in the state directory"
        found.append(f"{snapshot.rejected} results were set aside: they are {where}.")
    for result in snapshot.results:
        if result.status == "failed":
            advice = result.error_class.advice if result.error_class else ""
            message = escape(result.message or result.error_class)
            peer = f", with {escape(result.peer)} port {result.port}" if result.peer else ""
            where = f"Task {result.task_id} at {result.at[11:19]}{peer}"
            found.append(f'{where}: {message}<br><span class="soft">{advice}</span>')
    return [f"<li>{text}</li>" for text in found]


def _spark(rates: Sequence[float], label: str) -> str:
    """A curve of the rates, from 0 to the highest, with its range in words for screen readers."""
    if len(rates) < 2:
        return ""
    top = max(rates) or 1.0
    points = " ".join(f"{index},{1 - value / top:.3f}" for index, value in enumerate(rates))
    words = f"{label}: {rate(min(rates))} to {rate(max(rates))}"
    return (
        f'<svg role="img" aria-label="{words}" viewBox="0 0 {len(rates) - 1} 1"'
        f' preserveAspectRatio="none"><title>{words}</title><polyline points="{points}"/></svg>'
    )
