"""The report is found in a result, whatever else is in there."""

import msgspec
import pytest

from agent.protocol import Report, read_report


def test_the_report_is_read_back_from_a_result() -> None:
    report = Report(iperf3_version="3.12", warnings=["a warning"])
    result = msgspec.json.encode({"agent": report, "start": {}, "end": {"agent": 1}})
    assert read_report(result) == report


@pytest.mark.parametrize("result", [b"", b"null", b"[]", b"{}", b'{"agent":null}', b'{"agent":1}'])
def test_a_result_without_a_report_has_an_empty_one(result: bytes) -> None:
    assert read_report(result) == Report()
