"""What a result says of its own half, and both results together."""

import re
from typing import Any, cast

import msgspec
import pytest

from agent.diagnosis.evidence import Evidence, Role, Worst
from agent.diagnosis.halves import diagnose, enter_diagnoses, together
from agent.diagnosis.observed import ObservedTest
from agent.protocol import Cause, Diagnosis, Figures, Flow, Report
from tests.support.halves import LOSS, QUEUE, receiver, sender, udp
from tests.support.harness import ROOT


class Seen:
    """A test of which this was seen."""

    def __init__(self, *halves: Evidence) -> None:
        self._halves = {each.role: each for each in halves}

    def evidence(self, role: Role) -> Evidence:
        """That half of it."""
        return self._halves[role]


def entered(
    *seen: Evidence, figures: Figures | None, is_client: bool = True, orderly: bool = True
) -> Report:
    """The report of a test of which this was seen."""
    report = Report()
    test = cast(ObservedTest, Seen(*seen)) if seen else None
    enter_diagnoses(report, test, figures, orderly, is_client=is_client)
    return report


TCP = Figures(sent=101e6, received=100e6, sent_bytes=101e6 / 8 * 5)


@pytest.mark.parametrize(
    ("direction", "is_client", "role"),
    [
        ("forward", True, "sender"),
        ("forward", False, "receiver"),
        ("reverse", True, "receiver"),
        ("reverse", False, "sender"),
    ],
)
def test_each_side_is_the_end_that_it_is(direction: str, is_client: bool, role: str) -> None:
    figures = msgspec.structs.replace(TCP, direction=direction)
    report = entered(sender(), receiver(), figures=figures, is_client=is_client)
    assert report.diagnosis and report.diagnosis.evidence["role"] == role
    assert report.diagnosis_bidir_reverse is None
    other = "server" if is_client else "client"
    assert f"The {other}'s task knows more." in report.diagnosis.words


@pytest.mark.parametrize("is_client", [True, False])
def test_both_ways_have_one_each(is_client: bool) -> None:
    figures = msgspec.structs.replace(TCP, direction="bidirectional", backward=Flow(received=7e6))
    report = entered(sender(), receiver(), figures=figures, is_client=is_client)
    assert report.diagnosis and report.diagnosis_bidir_reverse
    roles = [each.evidence["role"] for each in (report.diagnosis, report.diagnosis_bidir_reverse)]
    assert roles == (["sender", "receiver"] if is_client else ["receiver", "sender"])
    assert report.diagnosis_bidir_reverse.evidence["rate"] == 7e6
    assert all(
        one.evidence["both_ways"] for one in (report.diagnosis, report.diagnosis_bidir_reverse)
    )


def test_the_document_counts_more_than_the_sockets() -> None:
    figures = msgspec.structs.replace(TCP, asked=200e6, omitted=2.0)
    report = entered(sender(rate=1e6), figures=figures)
    assert report.diagnosis
    found = report.diagnosis.evidence
    assert found["omitted"] == 2.0
    assert (found["rate"], found["sent"], found["asked"]) == (100e6, 101e6, 200e6)
    lossy = Figures(protocol="udp", sent=50e6, received=40e6, lost_packets=10.0, packets=50.0)
    half, _ = udp()
    report = entered(half, figures=lossy)
    assert report.diagnosis
    assert (report.diagnosis.evidence["lost"], report.diagnosis.evidence["packets"]) == (10, 50)


def test_a_test_that_nobody_saw_is_judged_by_its_document() -> None:
    reached = msgspec.structs.replace(TCP, asked=100e6)
    report = entered(figures=reached)
    assert report.diagnosis and report.diagnosis.limited_by is Cause.TARGET_RATE
    report = entered(figures=TCP)
    assert report.diagnosis and report.diagnosis.limited_by is Cause.UNKNOWN
    assert report.diagnosis.evidence["missing"] == ["sockets"]


def test_a_test_that_was_cut_short_has_one_only_where_there_is_evidence() -> None:
    assert entered(sender(), figures=TCP, orderly=False).diagnosis is None
    assert entered(sender(seconds=0.2), figures=TCP, orderly=False).diagnosis is None
    assert entered(sender(**LOSS | QUEUE), figures=TCP, orderly=False).diagnosis
    reverse = msgspec.structs.replace(TCP, direction="reverse")
    waits = receiver(rtt_ms=97.6, base_ms=0.005, rcv_rtt_ms=97.6)
    assert entered(waits, figures=reverse).diagnosis
    assert (
        entered(waits, figures=reverse, orderly=False).diagnosis is None
    ), "its server stood still"
    assert entered(sender(), figures=None, orderly=False).diagnosis is None


def test_both_halves_know_more_than_one() -> None:
    client, server = diagnose(sender(**QUEUE, retransmitted=100)), diagnose(receiver())
    assert not client.sure
    found = together(Report(diagnosis=client), Report(diagnosis=server))
    assert found and (found.limited_by, found.sure) == (Cause.PATH_CAPACITY, True)
    assert found == diagnose(sender(**QUEUE, retransmitted=100), receiver())
    back = together(
        Report(diagnosis_bidir_reverse=server), Report(diagnosis_bidir_reverse=client), back=True
    )
    assert back == found


def test_halves_come_from_results_as_the_manager_has_them() -> None:
    first, second = udp(rate=40e6, lost=4000, there_socket_drops=4000)
    texts = [msgspec.json.encode(Report(diagnosis=diagnose(each))) for each in (first, second)]
    client, server = (msgspec.json.decode(each, type=Report) for each in texts)
    found = together(client, server)
    assert found and (found.limited_by, found.sure) == (Cause.RECEIVER_HOST, True)


def test_one_half_is_better_than_none() -> None:
    alone = diagnose(sender(**LOSS))
    assert together(Report(diagnosis=alone), Report()) == alone
    assert together(Report(), Report()) is None
    assert together(Report(diagnosis=alone), Report(diagnosis=alone)) == alone
    odd: list[dict[str, Any]] = [{}, {"role": "onlooker"}, {"role": "receiver", "cpu": "much"}]
    for evidence in odd:
        other = Diagnosis(Cause.UNKNOWN, False, "Of another version.", evidence)
        assert together(Report(diagnosis=alone), Report(diagnosis=other)) == alone
    assert together(Report(diagnosis=alone), Report(diagnosis=diagnose(udp()[1]))) == alone


def test_a_cause_of_a_later_version_is_unknown() -> None:
    text = b'{"diagnosis":{"limited_by":"moon_phase","sure":true,"words":"It waned."}}'
    found = msgspec.json.decode(text, type=Report).diagnosis
    assert found and found.limited_by is Cause.UNKNOWN


def test_the_causes_and_the_evidence_are_documented() -> None:
    text = (ROOT / "docs/diagnosis.md").read_text()

    def keys(title: str) -> list[str]:
        table = text.partition(f"| `{title}` |")[2].partition("\n\n")[0]
        return re.findall(r"`([\w.]+)`", " ".join(re.findall(r"^\| (`.*?) \|", table, re.M)))

    assert sorted(keys("limited_by")) == sorted(set(Cause))
    assert sorted(keys("agent.diagnosis")) == sorted(Diagnosis.__struct_fields__)
    both = diagnose(sender(rtt_ms=20.5), receiver()).evidence
    worst = {f"worst.{name}" for name in Worst.__struct_fields__}
    known = {*Evidence.__struct_fields__, *both, *diagnose(*udp()).evidence, *worst}
    assert {"rtt_above_base_ms", "lost_share", "receiver_cpu"} < known
    assert sorted(keys("diagnosis.evidence")) == sorted(known)
