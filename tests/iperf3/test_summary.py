"""The figures of a document are read without building it."""

import json
from typing import Any

import pytest

from agent.iperf3.summary import read_summary
from tests.support.recorded_runs import VERSIONS, run


def first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of 3.9, whose later sums of one name are of the other direction."""
    return dict(reversed(pairs))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_figures_are_those_of_the_document(version: str) -> None:
    for case in ("tcp-parallel", "tcp-reverse", "tcp-bidir", "udp", "udp-reverse"):
        data = run(version, case).stdout
        summary, document = read_summary(data), json.loads(data, object_pairs_hook=first_of_each)
        assert summary is not None and summary.has_end and not summary.error
        for name in ("sum", "sum_sent", "sum_received"):
            sums = getattr(summary.end, name)
            assert (sums is not None) == (name in document["end"])
            for key, value in document["end"].get(name, {}).items():
                assert getattr(sums, key, value) == value
        cpu = summary.end.cpu_utilization_percent
        assert cpu is not None
        assert cpu.host_total == document["end"]["cpu_utilization_percent"]["host_total"]
        assert cpu.remote_total == document["end"]["cpu_utilization_percent"]["remote_total"]
        assert summary.end.sender_tcp_congestion == document["end"].get("sender_tcp_congestion")
        assert summary.start.version == f"iperf {version}"
        asked = summary.start.test_start
        assert asked is not None
        assert asked.protocol == ("UDP" if case.startswith("udp") else "TCP")
        assert asked.num_streams == (4 if case == "tcp-parallel" else 1)


def test_the_first_of_two_errors_in_a_document_is_read() -> None:
    for case, cause in (("port-in-use", "Address already in use"), ("arguments-bind", "Cannot")):
        data = run("3.9", f"server-{case}").stdout
        assert data.count(b'"error"') == 2
        summary = read_summary(data)
        assert summary is not None and cause in summary.error


@pytest.mark.parametrize(
    ("text", "has_end"),
    [
        (b'{"end":{}}', False),
        (b'{"end":{ \n\t}}', False),
        (b'{"end":null}', False),
        (b"{}", False),
        (b'{"end":{"streams":[]}}', True),
        (b'{"end":{"sum":null},"start":null,"error":null}', True),
        (b'{"end":{"sum":{"retransmits":null,"packets":"7"}}}', True),
    ],
)
def test_a_document_with_odd_values_is_still_read(text: bytes, has_end: bool) -> None:
    summary = read_summary(text)
    assert summary is not None and summary.has_end == has_end and summary.error == ""


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"end":[]}', b'{"error":{"a":1}}'])
def test_other_json_has_no_summary(text: bytes) -> None:
    assert read_summary(text) is None
