"""What makes the figures of a test doubtful is told with them."""

import msgspec
import pytest

from agent.iperf3.summary import read_summary
from agent.iperf3.warnings import warnings_about
from tests.support.recorded_runs import VERSIONS, features, run, summary_of


@pytest.mark.parametrize("version", VERSIONS)
def test_a_paced_test_has_no_warnings(version: str) -> None:
    for case in ("tcp", "tcp-parallel", "tcp-reverse", "tcp-bidir", "tcp-omit", "udp"):
        for recorded in (run(version, case), run(version, f"server-{case}")):
            assert warnings_about(summary_of(recorded), features(version)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_warning_about_a_short_test_has_both_times(version: str) -> None:
    for case in ("client-term", "client-of-server-term", "server-term"):
        (found,) = warnings_about(summary_of(run(version, case)), features(version))
        assert found.startswith("The test was cut short: 1.") and found.endswith(" s of 30 s.")


def edited(version: str, case: str, **changes: float) -> list[str]:
    """The warnings about a recorded document with other numbers in its end."""
    document = msgspec.json.decode(run(version, case).stdout.split(b"\n}")[0] + b"}")
    for section in document["end"].values():
        if isinstance(section, dict):
            section.update({key: changes[key] for key in changes if key in section})
    summary = read_summary(msgspec.json.encode(document))
    assert summary is not None
    return warnings_about(summary, features(version))


@pytest.mark.parametrize(("case", "side"), [("tcp", "client"), ("server-tcp", "server")])
def test_the_warning_about_a_busy_core_names_the_side_and_the_single_thread(
    case: str, side: str
) -> None:
    assert edited("3.12", case, host_total=99.6) == [
        f"The {side} used 100 % of a core, and iperf3 3.12 does all its work in one thread:"
        " the CPU and not the network may have limited the test."
    ]
    assert edited("3.12", case, host_total=94.9) == []


@pytest.mark.parametrize(("case", "side"), [("tcp", "server"), ("server-tcp", "client")])
def test_a_busy_core_on_the_other_side_has_a_warning(case: str, side: str) -> None:
    (found,) = edited("3.12", case, remote_total=95.0)
    assert found.startswith(f"The {side} used 95 % of a core: ")


def test_a_threaded_iperf3_is_busy_when_every_stream_fills_a_core() -> None:
    assert edited("3.18", "tcp-parallel", host_total=300.0) == []
    (found,) = edited("3.18", "tcp-parallel", host_total=390.0)
    assert found.startswith("The client used 390 % of a core: ")


def test_the_warning_about_loss_has_the_counts() -> None:
    lossy = {"lost_percent": 12.345, "lost_packets": 1234, "packets": 9996}
    arrived = (9996 - 1234) * 32768
    for version in VERSIONS:
        assert edited(version, "udp", bytes=arrived, **lossy) == [
            "The receiver lost 12.3 % of the datagrams (1234 of 9996)."
        ]
    assert edited("3.12", "udp", lost_percent=0.9) == []


def test_a_receiver_that_got_nothing_has_a_warning() -> None:
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
def test_a_document_with_few_figures_gets_the_warnings_that_it_allows(
    text: bytes, count: int
) -> None:
    summary = read_summary(text)
    assert summary is not None
    assert len(warnings_about(summary, features("3.18"))) == count
