"""Downloads for spreadsheets and scripts (CSV, RFC 4180): all tests, and the intervals of one."""

import csv
import re
from collections.abc import Iterator
from io import StringIO

from msgspec.structs import astuple

from agent.dev.store.records import Test, utc_now
from agent.dev.store.store import Store
from agent.dev.web.overview import TestRow
from agent.iperf3.summary import Sums, read_intervals
from agent.protocol import Flow
from agent.turns import await_turn

_TEST = "test begun_utc client server port protocol direction streams duration_s state sender"
_FIGURES = [name for name in Flow.__struct_fields__ if name != "rates"]
# The columns of figures whose names do not have the unit.
_RATES = {"sent": "sent_bit_per_s", "received": "received_bit_per_s"}
_UNITS = {**_RATES, "start": "start_s", "end": "end_s", "seconds": "length_s"}
# Before what a spreadsheet would take for a formula.
_FORMULA = re.compile(r"\A(?=\s*[=+\-@＝＋－＠]|[\t\r\n])")


def tests_csv(store: Store) -> Iterator[str]:
    """All tests, oldest first; those of both directions have a line for each sender."""
    yield _line(*_TEST.split(), *(_UNITS.get(name, name) for name in _FIGURES), "error")
    for test in store.exercises.tests():
        row = TestRow(store, test, utc_now())
        begun, ends = f"{row.begun:%Y-%m-%dT%H:%M:%SZ}", (row.client, row.server)
        how = (test.server_port, row.protocol, row.way, test.parallel, test.time_seconds)
        for way in row.directions:
            told = (row.phase, way.sender, *(getattr(way.flow, name) for name in _FIGURES))
            yield _line(test.id, begun, *ends, *how, *told, row.task.error)


def intervals_csv(store: Store, test: Test) -> Iterator[str]:
    """The intervals of a test, as the client's iperf3 wrote them, with a line for each sender."""
    yield _line("sender", *(_UNITS.get(name, name) for name in Sums.__struct_fields__))
    row = TestRow(store, test, utc_now())
    for interval in read_intervals(row.task.result):
        for way, sums in zip(row.directions, (interval.sum, interval.sum_bidir_reverse)):
            if sums:
                yield _line(way.sender, *astuple(sums))


def _line(*cells: object) -> str:
    # Thousands of lines leave time for heartbeats.
    await_turn()
    line = StringIO()
    safe = (_FORMULA.sub("'", cell) if isinstance(cell, str) else cell for cell in cells)
    csv.writer(line).writerow(safe)
    return line.getvalue()
