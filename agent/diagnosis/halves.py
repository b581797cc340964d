"""What limited a test, by one half of it for its result, and by the results of both."""

import msgspec

from agent.diagnosis.causes import diagnose
from agent.diagnosis.evidence import Evidence, Role
from agent.diagnosis.observed import ObservedTest
from agent.protocol import Cause, Diagnosis, Figures, Flow, Report

# What a test that was cut short was limited by, it says itself.
_SAYS_NOTHING = {Cause.UNKNOWN, Cause.TOO_SHORT, Cause.TARGET_RATE}


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
        is_clear = found.sure or found.limited_by is Cause.PATH_MTU
        if not orderly and (found.limited_by in _SAYS_NOTHING or not is_clear):
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
