"""What limited a test, by one half of it for its result, and by the results of both."""

import msgspec

from agent.diagnosis.ends import Ends
from agent.diagnosis.evidence import Evidence, Role
from agent.diagnosis.observed import ObservedTest
from agent.diagnosis.rules import Found
from agent.diagnosis.tcp import TCP_RULES
from agent.diagnosis.udp import UDP_RULES
from agent.diagnosis.words import sentences
from agent.protocol import Cause, Diagnosis, Figures, Flow, Report

# What the receiver's half may be sure of, and what needs no counter of the kernel's.
_RECEIVER_KNOWS = {Cause.TOO_SHORT, Cause.TARGET_RATE, Cause.RECEIVER_CPU, Cause.RECEIVER_HOST}
_BY_THE_DOCUMENT = {Cause.TOO_SHORT, Cause.TARGET_RATE}
# What stops a test altogether: all else lets something pass.
_STANDS_STILL = {Cause.PATH_MTU, Cause.RECEIVER_HOST, Cause.SENDER_HOST}


def diagnose(*halves: Evidence, ask: str = "") -> Diagnosis:
    """What limited one direction of a test, by the evidence of one half or of both.

    `ask` is whose task knows more: "client" or "server"; empty if there is none.
    """
    ends = Ends(*halves)
    found = [one for rule in (UDP_RULES if ends.is_udp else TCP_RULES) if (one := rule(ends))]
    # Who has seen a test knows its round trip.
    why = "" if ends.knows_sender else "not here"
    first, *others = [*found, Found(Cause.UNKNOWN, why=why if ends.base else "not seen")]
    sure = first.sure and _may_be_sure(first.cause, ends)
    also = next((each.cause for each in others if each.cause is not first.cause), None)
    if sure:
        also, ask = None, ""
    words = sentences(ends, first.why or first.cause, also, ask)
    return Diagnosis(first.cause, sure, " ".join(words), ends.figures())


def enter_diagnoses(
    report: Report,
    test: ObservedTest | None,
    figures: Figures | None,
    orderly: bool,
    *,
    is_client: bool,
) -> None:
    """Enter what limited each direction of a test, of which this host has seen one half.

    `figures` are of iperf3's document, and there is no diagnosis without them. A test that has not
    ended in an `orderly` way has one only where the evidence is clear: a host that stands still, or
    iperf3's own end, shows in the round trips and windows of the other one.
    """
    report.diagnosis = report.diagnosis_bidir_reverse = None
    if figures is None:
        return
    for back, flow in enumerate(figures.flows):
        sends = (figures.direction != "reverse" and not back) == is_client
        role: Role = "sender" if sends else "receiver"
        unseen = Evidence(role=role, missing=("sockets",))
        half = _with_figures(test.evidence(role) if test else unseen, figures, flow, orderly)
        found = diagnose(half, ask="server" if is_client else "client")
        # That it was short, or as fast as asked, a test that was cut short says itself.
        is_clear = found.sure and found.limited_by not in _BY_THE_DOCUMENT
        if not (orderly or is_clear or found.limited_by is Cause.PATH_MTU):
            continue
        if back:
            report.diagnosis_bidir_reverse = found
        else:
            report.diagnosis = found


def together(client: Report, server: Report, back: bool = False) -> Diagnosis | None:
    """What limited a test, by both results; `back` is the way back of a bidirectional one.

    Where only one of them has a diagnosis, it is that one.
    """
    both = [each.diagnosis_bidir_reverse if back else each.diagnosis for each in (client, server)]
    known = [one for one in both if one]
    try:
        halves = [msgspec.convert(one.evidence, Evidence) for one in known]
    except msgspec.ValidationError:
        # Another version's.
        halves = []
    fit = len({half.role for half in halves}) == 2 and len({half.protocol for half in halves}) == 1
    return diagnose(*halves) if fit else next(iter(known), None)


def _with_figures(seen: Evidence, figures: Figures, flow: Flow, orderly: bool) -> Evidence:
    """The evidence with what the document says, which counts more."""
    return msgspec.structs.replace(
        seen,
        # Both ways have as many each.
        streams=max(1, seen.streams // len(figures.flows)),
        # Its sockets are seen a little later, and were there a little earlier.
        seconds=max(seen.seconds, round(flow.seconds, 2)),
        protocol="udp" if figures.protocol == "udp" else "tcp",
        rate=flow.rate if flow.is_known else seen.rate,
        sent=flow.sent,
        asked=figures.asked,
        overtime=figures.overtime,
        omitted=figures.omitted,
        orderly=orderly,
        both_ways=len(figures.flows) > 1,
        lost=None if flow.lost_packets is None else round(flow.lost_packets),
        packets=None if flow.packets is None else round(flow.packets),
    )


def _may_be_sure(cause: Cause, ends: Ends) -> bool:
    # The kernel's counters have what was omitted, too.
    omitted = any(each.omitted for each in ends.halves)
    if (omitted or not ends.sees_cpu) and cause not in _BY_THE_DOCUMENT:
        return False
    if ends.stood_still and cause not in _STANDS_STILL:
        return False
    return ends.knows_sender or cause in _RECEIVER_KNOWS
