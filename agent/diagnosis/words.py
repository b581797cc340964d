"""What is said of a cause: a sentence or two with the figures, and what an operator can do."""

import string
from collections.abc import Callable, Iterator
from typing import Any

from agent.diagnosis.ends import CONSTANT, Ends
from agent.diagnosis.phrases import raised, share, size, thread
from agent.iperf3.warnings import REACHED
from agent.protocol import Cause
from agent.quantities import rate

# Why a test was as fast as it was: a cause, or where a cause has several faces one of those.
_WORDS = {
    Cause.TOO_SHORT: "The test ran for {seconds:.2g} s{over}: too short to say what limits it. Ask"
    " for a longer `time`.",
    "seen late": "iperf3 looked only each {overtime:.2g} s whether the bytes of the test were out:"
    " for so long of its {seconds:.3g} s nothing may have moved, and {rate} says little of the"
    " path. Ask for more `bytes`, or for a `time`.",
    Cause.TARGET_RATE: "The test reached its {key}: {rate} of the {asked} that were asked for. To"
    " find what the path carries, ask for a higher `{key}`{or_none}.",
    "all sent": "The sender sent all that it was asked for, {sent}, and {rate} arrived in the time:"
    " on a long path the slow start takes the rest. Ask for a longer `time`.",
    Cause.LINE_RATE: "The test filled the interface {interface}: {rate} of its {speed}.",
    Cause.SENDER_CPU: "The sender's CPU held the test back at {rate}: {sender.cpu:thread}.",
    Cause.RECEIVER_CPU: "The receiver's CPU held the test back at {rate}: {receiver.cpu:thread}.",
    Cause.RECEIVER_WINDOW: "The receiver's window held the sender back: {window} over {trip:.3g}"
    " ms{carries}. Ask for a larger `window`, or for none{rmem}.",
    "no window": "The receiver's window was 0 for much of the time, at {rate}: who ends the"
    " connection does not read. That is iperf3 there, or a proxy or a tunnel on the path.",
    Cause.SEND_BUFFER: "The sender's buffer held it back at {rate}: iperf3 waited for room in its"
    " {sender.sndbuf:size} for {sender.send_buffer_share:share} of the time, over {base:.3g} ms."
    " Ask for a larger `window`, or for none{wmem}.",
    Cause.PATH_CAPACITY: "A queue stood on the path: {rate} passed, and the round trip rose from"
    " {base:.3g} to {trip:.3g} ms, {lost}.{where}",
    "delayed end": "A queue stood before the path's slowest link: {rate} passed, and the end of the"
    " test came later by some {delay:.3g} ms, {lost}.",
    "growing queue": "The queue before the path's slowest link kept growing: {rate} of the {sent}"
    " that were sent came in time, and the end of the test later by some {delay:.3g} ms.",
    "no queue": "No window, buffer or host held the test back: the path may carry no more than"
    " {rate} ({sender.congestion}, {lost}).",
    Cause.PATH_LOSS: "The path carried {rate}, {lost}, though no queue stood: look for a policer, a"
    " very short queue or a bad link.",
    "lost steadily": "The path carried {rate}, {lost}, though the round trip rose by {rise:.2g} ms"
    " only: look for a policer, a very short queue or a bad link.",
    "lost at once": "At {rate}, what was lost was lost in {sender.lossy_share:share} of the time:"
    " {lost}, and the round trip rose from {base:.3g} to {trip:.3g} ms. That may be the slow start"
    " in a queue that is short for this path, or a moment of trouble. Ask for a longer `time`.",
    "queue not seen": "The path carried {rate}, {lost}, and no queue was seen: look for a policer,"
    " a short queue or a bad link.",
    "nothing passes": "The path carried {rate}, {lost}: a firewall may drop UDP.",
    "large datagrams": "The path carried {rate} in datagrams of {datagram:.0f} bytes, {lost}, while"
    " small packets passed: a filter of UDP or of fragments, or a smaller MTU on the path. Try a"
    " smaller `length`.",
    "out of order": "Of {receiver.segments} segments {receiver.out_of_order} came out of order, at"
    " {rate}: the path may lose some.",
    Cause.PATH_MTU: "Small packets pass and full ones do not: {sender.timeouts} time-outs with"
    " packets of {sender.pmtu} bytes, at {rate}. Look for a tunnel or a filter of ICMP on the path,"
    " or ask for a smaller `mss`.",
    "cut off": "Small packets passed and full ones no longer did, {sender.timeouts} time-outs, at"
    " {rate}: the path may have a smaller MTU since, as one through a tunnel has, or stood still.",
    "receiver stopped": "iperf3 on the receiver was stopped in {receiver.stopped:share} of the"
    " looks at it, at {rate}: see who sends it SIGSTOP.",
    Cause.RECEIVER_HOST: "iperf3 on the receiver did not read what had arrived, at {rate}: it"
    " filled {receiver.unread_share:share} of its buffer. See what holds it up there.",
    "receiver drops": "The receiving host dropped what had arrived, at {rate}: its sockets had no"
    " room for {receiver.socket_drops} datagrams, {lost}. Ask for a larger `window`, which"
    " net.core.rmem_max there allows up to its size.",
    "sender stopped": "iperf3 on the sender was stopped in {sender.stopped:share} of the looks at"
    " it, at {rate}: see who sends it SIGSTOP.",
    Cause.SENDER_HOST: "iperf3 on the sender wrote too little, at {rate}: it had something to send"
    " for {sender.busy_share:share} of the time. See what holds it up there.",
    "sender drops": "The sending host dropped {sender.qdisc_drops} packets at the queue of"
    " {interface}, at {rate}: see `tc -s qdisc` there.",
    "not sent": "The sender sent {sent} of the {asked} that were asked for, {lost}, and not for"
    " want of CPU. Its interface may be slower.",
    "not sent there": "The sender sent {sent} of the {asked} that were asked for, {lost}.",
    "reordering": "The path changes the order of packets: of {sender.retransmitted} segments that"
    " were sent again, {sender.needless} had arrived, at {rate}.",
    "not seen": "What limited the test at {rate} cannot be told: this host did not see it.",
    "not here": "At {rate}, nothing that the receiver can see held the test back.",
    Cause.UNKNOWN: "What limited the test at {rate} cannot be told: round trip {trip:.3g} ms over a"
    " base of {base:.3g} ms, {lost}.{faster}",
}
_NAMES = {
    Cause.LINE_RATE: "the interface's speed",
    Cause.SENDER_CPU: "the sender's CPU",
    Cause.RECEIVER_CPU: "the receiver's CPU",
    Cause.RECEIVER_WINDOW: "the receiver's window",
    Cause.SEND_BUFFER: "the sender's buffer",
    Cause.PATH_CAPACITY: "the path's slowest link",
    Cause.PATH_LOSS: "loss on the path",
    Cause.RECEIVER_HOST: "the receiving host",
    Cause.SENDER_HOST: "the sending host",
}
_FASTER = " It may have been accelerating: try a longer `time`."
_WHERE = (
    " It may be that of the way back, or the sender's own (`tc -s qdisc` there shows it), or the"
    " path became a longer one."
)
_FORMATS: dict[str, Callable[[Any], str]] = {"share": share, "size": size, "thread": thread}
# A stream that carries less than this share of the median is named.
_DIFFERS = 0.5


class _Sentence(string.Formatter):
    """Fills in what stands between braces, some of it as a share, a size or a thread's load."""

    def format_field(self, value: Any, spec: str) -> str:
        """One of these, or what Python makes of it; `?` if nobody knows."""
        if spec in _FORMATS:
            return _FORMATS[spec](value)
        return "?" if value is None else format(value, spec)


def sentences(ends: Ends, why: str, also: Cause | None, ask: str) -> Iterator[str]:
    """Those for a cause or one of its faces.

    `also` may have been it as well, and `ask` is whose task knows more; empty if there is none.
    """
    yield _Sentence().vformat(_WORDS[why], (), vars(ends) | _facts(ends))
    # A receiver does not count a stream of which nothing has come.
    worst = next((each.worst for each in reversed(ends.halves) if each.worst), None)
    if worst and worst.rate_share < _DIFFERS:
        other = "the other one" if ends.streams == 2 else "the median"
        yield f"Stream {worst.number} carried {share(worst.rate_share)} of what {other} did."
    if ends.stood_still:
        yield f"For {share(ends.sender.silent_share)} of the time nothing passed."
    if why == "queue not seen" and ends.has_missing and ends.streams > 1:
        yield f"One of the {ends.streams} streams may be dead."
    if also in _NAMES:
        yield f"It may as well have been {_NAMES[also]}."
    missing = {one for each in ends.halves for one in each.missing}
    if why in (Cause.UNKNOWN, "not seen", "not here") and missing:
        yield f"Not to be read: {', '.join(sorted(missing))}."
    if ask:
        yield f"The {ask}'s task knows more."


def _facts(ends: Ends) -> dict[str, str | float]:
    sender, receiver, reached = ends.sender, ends.receiver, ends.rate or 0.0
    by_bitrate = ends.is_at(ends.asked, REACHED) or (ends.asked and ends.is_udp)
    streams = f" times {ends.streams} streams" if ends.streams > 1 else ""
    speeds = [(each.speed_mbps, each.interface) for each in ends.halves if each.speed_mbps]
    speed, interface = min(speeds, default=(0, sender.interface or receiver.interface))
    held = ends.window if ends.is_window_constant else None
    carries = ends.carries * ends.base / max(ends.trip, 1e-3)
    return {
        "rate": rate(reached),
        "sent": rate(ends.sent or 0.0),
        "key": "bitrate" if by_bitrate else "fq_rate",
        "or_none": "" if ends.is_udp else " or for none",
        "asked": rate((ends.asked if by_bitrate else sender.pacing) or 0.0),
        "speed": rate(speed * 1e6),
        "interface": interface,
        "over": f" over a round trip of {ends.base:.3g} ms" if ends.base else "",
        "where": "" if ends.has_loss else _WHERE,
        "faster": _FASTER if (sender.window_floor or 1.0) < CONSTANT else "",
        "lost": _lost(ends),
        # A window that carries less than what passed was another one before.
        "carries": f" are at most {rate(carries)}" if carries >= reached else "",
        "window": f"{size(ends.window)}{streams}",
        "rmem": raised("tcp_rmem", "receiver", receiver.tcp_rmem_max, held),
        "wmem": raised("tcp_wmem", "sender", sender.tcp_wmem_max, sender.sndbuf),
    }


def _lost(ends: Ends) -> str:
    if not ends.knows_losses:
        return "what was lost is not known here"
    if ends.has_missing:
        return f"{share(ends.lost_share)} of what was sent did not arrive"
    what = "datagrams" if ends.is_udp else "segments"
    return f"{share(ends.lost_share)} of the {what} lost ({ends.lost})"
