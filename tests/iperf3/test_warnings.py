"""What makes the figures of a test doubtful is told with them."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from agent.iperf3.summary import Cpu, Sums, read_summary
from agent.protocol import Cause, Diagnosis, Report
from tests.support.recorded_runs import VERSIONS, doubts, features, run, summary_of


@pytest.mark.parametrize("version", VERSIONS)
def test_a_paced_test_has_no_warnings(version: str) -> None:
    for case in ("tcp", "tcp-parallel", "tcp-reverse", "tcp-bidir", "tcp-omit", "udp"):
        for recorded in (run(version, case), run(version, f"server-{case}")):
            assert doubts(summary_of(recorded), features(version)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_sends_has_no_report_to_miss(version: str) -> None:
    assert doubts(summary_of(run(version, "server-udp-reverse")), features(version)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_warning_about_a_short_test_has_both_times(version: str) -> None:
    for case in ("client-term", "client-of-server-term", "server-term"):
        (found,) = doubts(summary_of(run(version, case)), features(version))
        assert found.startswith("The test was cut short: 1.") and found.endswith(" s of 30 s.")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_rate_by_the_clock_of_iperf3_has_a_warning(version: str) -> None:
    for case in ("tcp-bytes", "server-tcp-bytes"):
        found = doubts(summary_of(run(version, case)), features(version))
        if version in ("3.9", "3.12"):
            assert found == []
        else:
            (words,) = found
            assert words.startswith("iperf3 looked only each 1 s whether all bytes were out:")
            assert "before the end of its 1 s, and the rate be higher than 41" in words


def test_a_bitrate_that_was_not_kept_has_a_warning() -> None:
    (found,) = edited("3.12", "tcp", bits_per_second=9.66e9)
    assert found.startswith("The test ran at 9.66 Gbit/s, though 50.0 Mbit/s were asked for:")
    assert len(edited("3.12", "tcp", host_total=99.6, bits_per_second=9.66e9)) == 2


Thread = Mapping[str, float] | None


def edited(version: str, case: str, thread: Thread = None, /, **changes: float) -> list[str]:
    """The warnings about a recorded document with other numbers in its end."""
    document = msgspec.json.decode(run(version, case).stdout.split(b"\n}")[0] + b"}")
    for section in document["end"].values():
        if isinstance(section, dict):
            section.update({key: changes[key] for key in changes if key in section})
    summary = read_summary(msgspec.json.encode(document))
    assert summary is not None
    host = {"iperf3_busiest_thread": thread} if thread else {}
    return doubts(summary, features(version), Report(host=host))


# The recorded tests have reached their bitrate of 50 Mbit/s for each stream.
SLOW: dict[str, Any] = {"bits_per_second": 40e6}


@pytest.mark.parametrize(("case", "side"), [("tcp", "client"), ("server-tcp", "server")])
def test_the_warning_about_a_busy_core_names_the_side_and_the_single_thread(
    case: str, side: str
) -> None:
    assert edited("3.12", case, host_total=99.6, **SLOW) == [
        f"The {side} used 100 % of a core, and iperf3 3.12 does all its work in one thread:"
        " the CPU and not the network may have limited the test."
    ]
    assert edited("3.12", case, host_total=94.9, **SLOW) == []


@pytest.mark.parametrize(("case", "side"), [("tcp", "server"), ("server-tcp", "client")])
def test_a_busy_core_on_the_other_side_has_a_warning(case: str, side: str) -> None:
    (found,) = edited("3.12", case, remote_total=95.0, **SLOW)
    assert found == (
        f"The {side} used 95 % of a core: the CPU and not the network may have limited the test."
    )


@pytest.mark.parametrize("case", ["tcp-parallel", "tcp-bidir"])
def test_nothing_is_concluded_from_a_cpu_of_unknown_threads(case: str) -> None:
    (found,) = edited("3.22", case, remote_total=180.0, bits_per_second=1e6)
    assert found == (
        "The server used 180 % of a core: whether that limited the test is not known here."
    )


def test_a_cpu_that_the_diagnosis_names_has_no_warning_too() -> None:
    summary = summary_of(run("3.12", "tcp"))
    limited = Report(diagnosis=Diagnosis(Cause.SENDER_CPU, True, "The sender's CPU."))
    cpu = msgspec.structs.replace(summary.end.cpu_utilization_percent or Cpu(), host_total=99.0)
    sent = msgspec.structs.replace(summary.end.sum_sent or Sums(), bits_per_second=40e6)
    end = msgspec.structs.replace(
        summary.end, cpu_utilization_percent=cpu, sum_sent=sent, sum_received=sent
    )
    busy = msgspec.structs.replace(summary, end=end)
    assert len(doubts(busy, features("3.12"))) == 1
    assert doubts(busy, features("3.12"), limited) == []


def test_a_threaded_iperf3_is_busy_when_its_busiest_thread_is() -> None:
    """What all its threads use together says nothing."""
    assert edited("3.18", "tcp-parallel", host_total=390.0, bits_per_second=1e6) == []
    idle = {"run": 0.5, "waited": 0.4}
    assert edited("3.18", "tcp-parallel", idle, host_total=390.0, bits_per_second=1e6) == []
    busy = {"run": 0.904, "waited": 0.06}
    assert edited("3.18", "tcp-parallel", busy, host_total=100.0, bits_per_second=1e6) == [
        "The client's busiest thread ran 90 % of the time and waited 6 % for a core:"
        " the CPU and not the network may have limited the test."
    ]


@pytest.mark.parametrize("case", ["tcp", "server-tcp", "udp", "tcp-reverse", "tcp-parallel"])
def test_a_test_that_reached_its_bitrate_was_not_limited_by_a_cpu(case: str) -> None:
    """3.16 and 3.17 spin while they wait for the next packet's time."""
    busy = {"run": 1.0, "waited": 0.0}
    # A UDP document of 3.9 does not have the bitrate that was asked for.
    for version in [each for each in VERSIONS if (each, case) != ("3.9", "udp")]:
        assert edited(version, case, busy, host_total=102.0, remote_total=102.0) == []


def test_a_test_of_milliseconds_says_nothing_of_a_cpu() -> None:
    busy: dict[str, Any] = {"host_total": 100.0, "remote_total": 100.0, **SLOW}
    found = edited("3.12", "tcp", None, seconds=0.02, **busy)
    assert not [warning for warning in found if "core" in warning]


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
    assert doubts(summary, features("3.12")) == [
        f"The sender sent {sent} bytes and the receiver reports none."
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b'{"end":{"streams":[]}}', 0),
        (b'{"end":{"cpu_utilization_percent":{"remote_total":96}}}', 1),
        (b'{"start":{"test_start":{"duration":10}},"end":{"sum_sent":null}}', 0),
    ],
)
def test_a_document_with_few_figures_gets_the_warnings_that_it_allows(
    text: bytes, count: int
) -> None:
    summary = read_summary(text)
    assert summary is not None
    assert len(doubts(summary, features("3.18"))) == count
