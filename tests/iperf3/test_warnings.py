"""What makes the figures of a test doubtful is told with them."""

import msgspec
import pytest

from agent.iperf3.summary import read_summary
from agent.iperf3.warnings import warnings_about
from tests.support.recorded_runs import VERSIONS, features, run, summary_of


@pytest.mark.parametrize("version", VERSIONS)
def test_a_paced_test_is_nothing_to_warn_of(version: str) -> None:
    for case in ("tcp", "tcp-parallel", "tcp-reverse", "tcp-bidir", "tcp-omit", "udp"):
        for recorded in (run(version, case), run(version, f"server-{case}")):
            assert warnings_about(summary_of(recorded), features(version)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_test_that_was_cut_short_says_how_short(version: str) -> None:
    for case in ("client-term", "client-of-server-term", "server-term"):
        (found,) = warnings_about(summary_of(run(version, case)), features(version))
        assert found.startswith("The test was cut short: 1.") and found.endswith(" s of 30 s.")


def edited(version: str, case: str, **changes: float) -> list[str]:
    """The warnings about a recorded document in which some numbers of its end are replaced."""
    document = msgspec.json.decode(run(version, case).stdout.split(b"\n}")[0] + b"}")
    for section in document["end"].values():
        if isinstance(section, dict):
            section.update({key: changes[key] for key in changes if key in section})
    summary = read_summary(msgspec.json.encode(document))
    assert summary is not None
    return warnings_about(summary, features(version))


@pytest.mark.parametrize(("case", "side"), [("tcp", "client"), ("server-tcp", "server")])
def test_a_busy_core_is_named_with_its_side_and_the_single_thread(case: str, side: str) -> None:
    assert edited("3.12", case, host_total=99.6) == [
        f"The {side} used 100 % of a core, and iperf3 3.12 does all its work in one thread:"
        " the CPU and not the network may have limited the test."
    ]
    assert edited("3.12", case, host_total=94.9) == []


@pytest.mark.parametrize(("case", "side"), [("tcp", "server"), ("server-tcp", "client")])
def test_a_busy_core_on_the_other_side_is_named(case: str, side: str) -> None:
    (found,) = edited("3.12", case, remote_total=95.0)
    assert found.startswith(f"The {side} used 95 % of a core: ")


def test_a_threaded_iperf3_is_busy_when_each_stream_has_filled_a_core() -> None:
    assert edited("3.18", "tcp-parallel", host_total=300.0) == []
    (found,) = edited("3.18", "tcp-parallel", host_total=390.0)
    assert found.startswith("The client used 390 % of a core: ")


def test_loss_at_the_receiver_is_told_with_its_figures() -> None:
    lossy = {"lost_percent": 12.345, "lost_packets": 1234, "packets": 9996}
    for version in VERSIONS:
        assert edited(version, "udp", **lossy) == [
            "The receiver lost 12.3 % of the datagrams (1234 of 9996)."
        ]
    assert edited("3.12", "udp", lost_percent=0.9) == []


def test_a_receiver_that_got_nothing_is_told() -> None:
    document = msgspec.json.decode(run("3.12", "udp").stdout)
    document["end"]["sum_received"]["bytes"] = 0
    summary = read_summary(msgspec.json.encode(document))
    assert summary is not None
    sent = document["end"]["sum_sent"]["bytes"]
    assert warnings_about(summary, features("3.12")) == [
        f"The sender sent {sent} bytes and the receiver reports none."
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b'{"end":{"streams":[]}}', 0),
        (b'{"end":{"cpu_utilization_percent":{"host_total":96}}}', 1),
        (b'{"start":{"test_start":{"duration":10}},"end":{"sum_sent":null}}', 0),
    ],
)
def test_a_document_that_says_little_is_warned_of_as_far_as_it_goes(
    text: bytes, count: int
) -> None:
    summary = read_summary(text)
    assert summary is not None
    assert len(warnings_about(summary, features("3.18"))) == count
