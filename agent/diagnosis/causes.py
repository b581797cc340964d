"""What limited a test, from the evidence of its halves."""

from agent.diagnosis.ends import Ends
from agent.diagnosis.evidence import Evidence
from agent.diagnosis.rules import Found
from agent.diagnosis.tcp import TCP_RULES
from agent.diagnosis.udp import UDP_RULES
from agent.diagnosis.words import words_for
from agent.protocol import Cause, Diagnosis

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
    nothing = Found(Cause.UNKNOWN, why=why if ends.base else "not seen")
    first = found[0] if found else nothing
    sure = first.sure and _may_be_sure(first.cause, ends)
    others = [each.cause for each in found if each.cause is not first.cause]
    also = None if sure or not others else others[0]
    words = words_for(ends, first.why or first.cause, also, "" if sure else ask)
    return Diagnosis(first.cause, sure, words, ends.figures())


def _may_be_sure(cause: Cause, ends: Ends) -> bool:
    # The kernel's counters have what was omitted, too.
    omitted = any(each.omitted for each in ends.halves)
    if (omitted or not ends.sees_cpu) and cause not in _BY_THE_DOCUMENT:
        return False
    if ends.stood_still and cause not in _STANDS_STILL:
        return False
    return ends.knows_sender or cause in _RECEIVER_KNOWS
