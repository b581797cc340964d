"""The downloads of the dev Manager's page: all tests, and the intervals of one, as CSV."""

import csv
import io
from base64 import b64encode
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
import requests

from agent.dev.server import DevManager
from agent.dev.store import records
from agent.dev.store.store import Store
from agent.dev.web.overview import intervals_csv
from agent.iperf3.documents import find_documents
from tests.support.dev_client import DEADLINE_SECONDS

RECORDED = Path(__file__).parent.parent / "iperf3" / "data" / "3.12"
# What no agent may be called for a spreadsheet's sake, but is.
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", '=HYPERLINK("x","y")']


def get(manager: DevManager, path: str) -> str:
    """A download, checked for what each has in common."""
    answer = requests.get(manager.url + path, timeout=DEADLINE_SECONDS)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.content.decode()


def table(text: str) -> list[dict[str, str]]:
    """The rows of a file of RFC 4180: each ends with CR LF, and has as many fields as the first."""
    head, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert text.endswith("\r\n") and {len(row) for row in rows} <= {len(head)}
    return [dict(zip(head, row)) for row in rows]


def run(store: Store, name: str = "", error: str = "", **plan: Any) -> records.Test:
    """A test from a2 to a1 that has this recorded result, or has failed."""
    exercise = store.exercises.create("x", 10)
    new = store.exercises.add_test(exercise.id, 1, 2, 5201 + len(store.exercises.tests()), **plan)
    store.exercises.start(exercise.id)
    store.tasks.stage_release(new.client_task)
    store.tasks.claim(2)
    store.tasks.start(2, new.client_task.id)
    result = records.NULL
    if name:
        output = (RECORDED / f"{name}.stdout").read_bytes()
        result = msgspec.Raw(output[slice(*find_documents(output)[-1])])
    status: Any = "failed" if error else "succeeded"
    store.tasks.report(2, new.client_task.id, status, result, error)
    return new.test


def test_the_intervals_of_a_test(manager: DevManager, store: Store) -> None:
    test = run(store, "tcp-bidir", options={"bidir": True})
    rows = table(get(manager, f"/test-{test.id}.csv"))
    (wanted,) = msgspec.json.decode(store.tasks.get(test.client_task_id).result)["intervals"]
    assert [row["sender"] for row in rows] == ["a2", "a1"]
    for row, sums in zip(rows, (wanted["sum"], wanted["sum_bidir_reverse"])):
        assert float(row["bits_per_second"]) == pytest.approx(sums["bits_per_second"])
        assert float(row["end_s"]) == pytest.approx(sums["end"])
        assert (float(row["start_s"]), float(row["bytes"])) == (0, sums["bytes"])
        assert (row["omitted"], row["jitter_ms"]) == ("False", "")


def test_all_tests_with_units_in_the_names_of_columns(manager: DevManager, store: Store) -> None:
    reverse = run(store, "udp-reverse", udp=True, parallel=2, options={"reverse": True})
    run(store, "tcp-bidir", options={"bidir": True})
    run(store, error='no "luck",\r\nreally')
    rows = table(get(manager, "/tests.csv"))
    assert [(row["test"], row["sender"]) for row in rows] == [
        ("1", "a1"),
        ("2", "a2"),
        ("2", "a1"),
        ("3", "a2"),
    ]
    first = {
        "client": "a2",
        "server": "a1",
        "port": "5201",
        "protocol": "UDP",
        "direction": "server to client",
        "streams": "2",
        "duration_s": "10",
        "state": "succeeded",
        "retransmits": "",
        "error": "",
    }
    assert first.items() <= rows[0].items()
    end = msgspec.json.decode(store.tasks.get(reverse.client_task_id).result)["end"]
    assert float(rows[0]["sent_bit_per_s"]) == pytest.approx(
        end["sum_sent"]["bits_per_second"], rel=0.01
    )
    assert float(rows[0]["jitter_ms"]) == pytest.approx(end["sum"]["jitter_ms"])
    assert [row["direction"] for row in rows[1:]] == ["both ways", "both ways", "client to server"]
    assert (rows[3]["state"], rows[3]["error"]) == ("failed", 'no "luck",\r\nreally')
    assert rows[3]["sent_bit_per_s"] == ""


@pytest.mark.parametrize("name", FORMULAS)
def test_no_name_is_a_formula(manager: DevManager, store: Store, name: str) -> None:
    # From a state file of an older version: such a name is refused now.
    store.agents.get(2).name = name
    test = run(store, "tcp-reverse", error=name)
    (listed,) = table(get(manager, "/tests.csv"))
    (interval,) = table(get(manager, f"/test-{test.id}.csv"))
    texts = (listed["client"], listed["sender"], listed["error"], interval["sender"])
    assert set(texts) == {f"'{name}"}


def test_a_long_download_leaves_time_for_others(store: Store) -> None:
    test = run(store, "tcp")
    row = {"sum": {"start": 1, "end": 2, "bits_per_second": 3}}
    result = msgspec.json.encode({"intervals": [row] * 30_000})
    store.tasks.get(test.client_task_id).result = msgspec.Raw(result)
    lines = intervals_csv(store, test)
    # The first line comes before the intervals are read, and the second after that.
    assert next(lines) and next(lines)
    turns: list[None] = []

    def take_turns() -> None:
        while True:
            gevent.sleep(0.001)
            turns.append(None)

    others = gevent.spawn(take_turns)
    assert len(list(lines)) == 29_999
    others.kill()
    assert turns


def test_what_does_not_exist_is_not_found(manager: DevManager) -> None:
    answer = requests.get(f"{manager.url}/test-9.csv", timeout=DEADLINE_SECONDS)
    assert answer.status_code == 404
    assert get(manager, "/tests.csv").count("\r\n") == 1


def test_downloads_ask_for_the_pages_password(store: Store) -> None:
    test = run(store, "tcp-reverse")
    manager = DevManager(store, "127.0.0.1", 0, admin_password="password")
    manager.start()
    try:
        proof = {"Authorization": "Basic " + b64encode(b"admin:password").decode()}
        for path in ("/tests.csv", f"/test-{test.id}.csv"):
            for headers, status in ({}, 401), (proof, 200), ({"Host": "evil.example"}, 403):
                answer = requests.get(manager.url + path, headers=headers, timeout=DEADLINE_SECONDS)
                assert answer.status_code == status
                assert status == 200 or "a2" not in answer.text
    finally:
        manager.stop()
