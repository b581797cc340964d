"""What is said of a cause: a sentence or two with the figures, and what an operator can do."""

from collections.abc import Iterator

from agent.diagnosis.ends import REACHED, Ends
from agent.protocol import Cause
from agent.quantities import rate

# Why a test was as fast as it was: a cause, or where a cause has several faces one of those.
_WORDS = {
    Cause.TOO_SHORT: "The test ran for {seconds:.2g} s{over}: too short to say what limits"
    " it. Ask for a longer `time`.",
    "seen late": "iperf3 looked only each {overtime:.2g} s whether the bytes of the test were out:"
    " for so long of its {seconds:.3g} s nothing may have moved, and {rate} says little of the"
    " path. Ask for more `bytes`, or for a `time`.",
    Cause.TARGET_RATE: "The test reached its {key}: {rate} of the {asked} that were asked for. To"
    " find what the path carries, ask for a higher `{key}`{or_none}.",
    Cause.LINE_RATE: "The test filled the interface {interface}: {rate} of its {speed}.",
    Cause.SENDER_CPU: "The sender's CPU held the test back at {rate}: {sender_thread}.",
    Cause.RECEIVER_CPU: "The receiver's CPU held the test back at {rate}: {receiver_thread}.",
    Cause.RECEIVER_WINDOW: "The receiver's window held the sender back: {window} over {trip:.3g} ms"
    " are at most {carries}. Ask for a larger `window`, or for none and raise"
    " net.ipv4.tcp_rmem on the receiver{rmem}.",
    Cause.SEND_BUFFER: "The sender's buffer held it back at {rate}: iperf3 waited for room in its"
    " {sndbuf} for {buffer_share} of the time, over {base:.3g} ms. Ask for a larger `window`, or"
    " for none and raise net.ipv4.tcp_wmem on the sender{wmem}.",
    Cause.PATH_CAPACITY: "A queue stood before the path's slowest link, which carries {rate}: the"
    " round trip rose from {base:.3g} to {trip:.3g} ms, {lost}.",
    "delayed end": "A queue stood before the path's slowest link, which carries {rate}: the end of"
    " the test came later by some {delay:.3g} ms, {lost}.",
    "no queue": "No window, buffer or host held the test back: the path may carry no more than"
    " {rate} ({congestion}, {lost}).",
    Cause.PATH_LOSS: "The path carried {rate}, {lost}, though no queue {stood}: look for a policer,"
    " a very short queue or a bad link.",
    "out of order": "Of {came} segments {behind} came out of order, at {rate}: the path may lose"
    " some.",
    Cause.PATH_MTU: "Small packets pass and full ones do not: {timeouts} time-outs with packets of"
    " {pmtu} bytes, at {rate}. Look for a tunnel or a filter of ICMP on the path, or ask for a"
    " smaller `mss`.",
    "receiver stopped": "iperf3 on the receiver was stopped in {stopped} of the looks at it, at"
    " {rate}: see who sends it SIGSTOP.",
    Cause.RECEIVER_HOST: "iperf3 on the receiver did not read what had arrived, at {rate}: it"
    " filled {unread} of its buffer. See what holds it up there.",
    "receiver drops": "The receiving host dropped what had arrived, at {rate}: its sockets had no"
    " room for {drops} datagrams, {lost}. Ask for a larger `window`, which net.core.rmem_max"
    " there allows up to its size.",
    "sender stopped": "iperf3 on the sender was stopped in {stopped} of the looks at it, at {rate}:"
    " see who sends it SIGSTOP.",
    Cause.SENDER_HOST: "iperf3 on the sender wrote too little, at {rate}: it had something to send"
    " for {busy} of the time. See what holds it up there.",
    "sender drops": "The sending host dropped {qdisc_drops} packets at the queue of {interface}, at"
    " {rate}: see `tc -s qdisc` there.",
    "not sent": "The sender sent {sent} of the {asked} that were asked for, {lost}, and not for"
    " want of CPU. Its interface may be slower.",
    "not sent there": "The sender sent {sent} of the {asked} that were asked for, {lost}.",
    "reordering": "The path changes the order of packets: of {again} segments that were sent again,"
    " {needless} had arrived, at {rate}.",
    "not seen": "What limited the test at {rate} cannot be told: this host did not see it.",
    "not here": "At {rate}, nothing that the receiver can see held the test back.",
    Cause.UNKNOWN: "What limited the test at {rate} cannot be told: round trip {trip:.3g} ms over a"
    " base of {base:.3g} ms, {lost}. It may have been accelerating: try a longer `time`.",
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
# A stream that carries less than this share of the median is named.
_DIFFERS = 0.5


def words_for(ends: Ends, why: str, also: Cause | None = None, ask: str = "") -> str:
    """The words for a cause or one of its faces.

    `also` may have been it as well, and `ask` is whose task knows more.
    """
    return " ".join(_said(ends, why, also, ask))


def _said(ends: Ends, why: str, also: Cause | None, ask: str) -> Iterator[str]:
    facts = {name: "?" if value is None else value for name, value in _facts(ends).items()}
    yield _WORDS[why].format_map(facts)
    worst = next((each.worst for each in ends.halves if each.worst), None)
    if worst and worst.rate_share < _DIFFERS:
        yield f"Stream {worst.number} carried {share(worst.rate_share)} of what the median did."
    if also in _NAMES:
        yield f"It may as well have been {_NAMES[also]}."
    missing = {one for each in ends.halves for one in each.missing}
    if why in (Cause.UNKNOWN, "not seen", "not here") and missing:
        yield f"Not to be read: {', '.join(sorted(missing))}."
    if ask:
        yield f"The {ask}'s task knows more."


def _facts(ends: Ends) -> dict[str, str | float | None]:
    sender, receiver, reached = ends.sender, ends.receiver, ends.rate or 0.0
    by_bitrate = ends.is_at(ends.asked, REACHED) or (ends.asked and ends.is_udp)
    streams = f" times {ends.streams} streams" if ends.streams > 1 else ""
    speeds = [(each.speed_mbps, each.interface) for each in ends.halves if each.speed_mbps]
    speed, interface = min(speeds, default=(0, sender.interface or receiver.interface))
    window = sender.window_bytes if ends.knows_sender else receiver.rcv_wnd
    return {
        "rate": rate(reached),
        "sent": rate(ends.sent or 0.0),
        "seconds": ends.seconds,
        "overtime": ends.overtime,
        "key": "bitrate" if by_bitrate else "fq_rate",
        "or_none": "" if ends.is_udp else " or for none",
        "asked": rate((ends.asked if by_bitrate else sender.pacing) or 0.0),
        "speed": rate(speed * 1e6),
        "interface": interface,
        "base": ends.base,
        "over": f" over a round trip of {ends.base:.3g} ms" if ends.base else "",
        "trip": ends.base + ends.rise,
        "delay": ends.delay,
        "lost": _lost(ends),
        "stood": "stood" if ends.knows_sender else "is seen from here",
        "carries": rate(ends.carries * ends.base / max(ends.base + ends.rise, 1e-3)),
        "window": f"{size(window)}{streams}",
        "rmem": _at_most(receiver.tcp_rmem_max),
        "wmem": _at_most(sender.tcp_wmem_max),
        "sndbuf": size(sender.sndbuf),
        "buffer_share": share(sender.send_buffer_share),
        "busy": share(sender.busy_share),
        "unread": share(receiver.unread_share),
        "stopped": share(sender.stopped or receiver.stopped),
        "sender_thread": _thread(sender.cpu),
        "receiver_thread": _thread(receiver.cpu),
        "drops": receiver.socket_drops,
        "qdisc_drops": sender.qdisc_drops,
        "again": sender.retransmitted,
        "needless": sender.needless,
        "timeouts": sender.timeouts,
        "pmtu": sender.pmtu,
        "came": receiver.segments,
        "behind": receiver.out_of_order,
        "congestion": sender.congestion,
    }


def _thread(cpu: tuple[float, float] | None) -> str:
    ran, waited = cpu or (0.0, 0.0)
    words = f"its busiest thread ran {share(ran)} of the time and waited {share(waited)} for a core"
    if waited > ran:
        return f"{words}. Other work or a quota has it: see `top`, and `cpu.max` of its group"
    return f"{words}. From iperf3 3.16 on, `parallel` streams use a core each"


def _lost(ends: Ends) -> str:
    if not ends.knows_losses:
        return "what was lost is not known here"
    what = "datagrams" if ends.is_udp else "segments"
    return f"{share(ends.lost_share)} of the {what} lost ({ends.lost})"


def _at_most(most: int | None) -> str:
    return "" if most is None else f" (now at most {size(most)})"


def share(part: float | None) -> str:
    """A share in per cent, such as `97 %` or `0.021 %`."""
    per_cent = 100 * (part or 0.0)
    return f"{per_cent:.0f} %" if per_cent >= 9.95 else f"{per_cent:.2g} %"


def size(number: float | None) -> str:
    """Bytes such as `38 KiB`."""
    kib = (number or 0.0) / 1024
    return f"{kib / 1024:.3g} MiB" if kib >= 999.5 else f"{kib:.3g} KiB"
