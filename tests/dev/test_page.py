"""The dev Manager's page over real sockets: what it shows, takes and refuses."""

import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.dev.server import DevManager
from agent.dev.store import records
from agent.dev.store.records import HeartbeatRow, utc_now
from agent.dev.store.store import Store
from agent.diagnosis.halves import diagnose
from agent.protocol import ClientPayload, read_payload
from tests.support.dev_client import DEADLINE_SECONDS
from tests.support.halves import QUEUE, receiver, sender
from tests.support.harness import until

HTML = {"Accept": "text/html,*/*;q=0.8"}
FORM = {
    "client_agent_id": "2",
    "server_agent_id": "1",
    "direction": "client to server",
    "protocol": "tcp",
    "parallel": "1",
    "time_seconds": "3",
    "server_port": "5201",
}
HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>&amp;{{7*7}}"""
# Attributes that name what a browser loads, or where it goes.
LOADING = {"src", "href", "action", "formaction", "data", "poster", "srcset", "xlink:href"}


def get(
    manager: DevManager, path: str = "/", headers: Mapping[str, str] = HTML
) -> requests.Response:
    """The page, as a browser asks for it."""
    sent = {**HTML, **headers}
    return requests.get(manager.url + path, headers=sent, timeout=DEADLINE_SECONDS)


def post(
    manager: DevManager,
    path: str = "/",
    form: Mapping[str, str] = FORM,
    headers: Mapping[str, str] = HTML,
) -> requests.Response:
    """A form as a browser sends it from the page itself, or as the headers say."""
    return requests.post(
        manager.url + path,
        data=form,
        headers={"Origin": manager.url, **HTML, **headers},
        timeout=DEADLINE_SECONDS,
        allow_redirects=False,
    )


def text(answer: requests.Response) -> str:
    """The text of the page, in one line."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", answer.text, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def make_test(store: Store, **options: Any) -> records.Test:
    """A started test from a2 to a1."""
    exercise = store.exercises.create("x", 10)
    test = store.exercises.add_test(exercise.id, 1, 2, 5201, **options).test
    store.exercises.start(exercise.id)
    return test


def report(store: Store, task_id: int, result: Any, error: str = "") -> None:
    """An agent claims a task and reports it, as failed when there is an error."""
    task = store.tasks.get(task_id)
    if task.status == "queued":
        store.tasks.stage_release(task)
    while task.status == "pending":
        store.tasks.claim(task.agent_id)
    store.tasks.start(task.agent_id, task_id)
    raw = msgspec.Raw(msgspec.json.encode(result))
    status: Any = "failed" if error else "succeeded"
    store.tasks.report(task.agent_id, task_id, status, raw, error)


class Tags(HTMLParser):
    """Every tag of a document, with its attributes."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one."""
        self.found.append((tag, dict(attrs)))


def test_hosts_that_share_an_agents_name_are_named(manager: DevManager, store: Store) -> None:
    words = "Several agents have this name and key: 10.0.0.1, <b>. Give each its own."
    for instance, address in (("one", "10.0.0.1"), ("two", "<b>"), ("one", "10.0.0.1")):
        assert words not in text(get(manager))
        store.agents.heartbeat(1, address, [], instance)
    assert words in text(get(manager))


def test_a_browser_gets_the_page_and_curl_the_calls(manager: DevManager) -> None:
    page = get(manager)
    assert page.headers["Content-Type"].startswith("text/html")
    assert "Start a test" in page.text
    calls = requests.get(manager.url, timeout=DEADLINE_SECONDS)
    assert calls.headers["Content-Type"].startswith("text/plain")
    assert "/v1/exercises" in calls.text


def test_it_shows_the_agents_without_their_keys(manager: DevManager, store: Store) -> None:
    store.agents.update(store.agents.add("retired", "key-3").id, {"disabled": True})
    page = get(manager)
    assert "a1 127.0.0.1 Linux online a2 Debian never registered" in text(page)
    assert "retired" not in page.text
    assert "key-1" not in page.text


def test_nothing_is_loaded_from_elsewhere(manager: DevManager, store: Store) -> None:
    make_test(store)
    page = get(manager)
    for tag, attributes in Tags(page.text).found:
        for name in LOADING & attributes.keys():
            where = attributes[name] or ""
            assert where.startswith(("/", "#", "data:")) or not where, (tag, name, where)
    assert "http:" not in page.text and "https:" not in page.text and "url(" not in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in page.headers


def test_a_form_starts_a_test(manager: DevManager, store: Store) -> None:
    answer = post(
        manager, form={**FORM, "protocol": "udp", "parallel": "4", "direction": "both ways"}
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/?test=1#result")
    client = store.tasks.get(2)
    assert (client.agent_id, client.status) == (2, "queued")
    assert store.tasks.get(1).status == "pending"
    wanted = {"port": 5201, "udp": True, "parallel": 4, "time": 3, "bidir": True}
    assert wanted.items() <= client.payload.items()
    assert store.exercises.get(1).started_at is not None


def test_the_form_is_filled_in_as_the_test_that_was_asked_for(
    manager: DevManager, store: Store
) -> None:
    post(
        manager, form={**FORM, "direction": "server to client", "protocol": "udp", "parallel": "4"}
    )
    chosen = [
        attributes["value"]
        for tag, attributes in Tags(get(manager, "/?test=1").text).found
        if (tag == "option" and "selected" in attributes) or tag == "input"
    ]
    assert chosen == [
        "2",
        "1",
        "server to client",
        "udp",
        "4",
        "3",
        "5201",
        "1000000",
        "",
        "",
        "",
        "",
    ]


OPTIONS = {
    "bitrate": "25G",
    "omit": "2",
    "dscp": "AF41",
    "ip_version": "4",
    "bind": " 127.0.0.1 ",
}


def test_options_reach_the_clients_payload_and_the_form_again(
    manager: DevManager, store: Store
) -> None:
    assert post(manager, form={**FORM, **OPTIONS}).status_code == 303
    payload = store.tasks.get(2).payload
    wanted = {"bitrate": 25 * 10**9, "omit": 2, "dscp": "AF41", "ip_version": 4}
    assert {**wanted, "bind": "127.0.0.1"}.items() <= payload.items()
    raw = msgspec.Raw(msgspec.json.encode(payload))
    assert read_payload(raw, ClientPayload).dscp == "AF41"
    words = "bitrate 25.0 Gbit/s, omit 2, dscp AF41, ip version 4, bind 127.0.0.1"
    assert f"port 5201, {words}. Tasks" in text(get(manager, "/?test=1"))
    shown = {each.get("name"): each for _, each in Tags(get(manager, "/?test=1").text).found}
    assert [shown[name]["value"] for name in ("bitrate", "omit", "dscp", "bind")] == [
        *("25000000000", "2", "AF41", "127.0.0.1")
    ]


@pytest.mark.parametrize(
    ("protocol", "given", "sent"),
    [("udp", "", 10**6), ("udp", "0", 0), ("udp", "10M", 10**7), ("tcp", "", None)],
)
def test_udp_is_sent_at_1_mbit_s_unless_the_form_says_otherwise(
    manager: DevManager, store: Store, protocol: str, given: str, sent: int | None
) -> None:
    post(manager, form={**FORM, "protocol": protocol, "bitrate": given})
    assert store.tasks.get(2).payload.get("bitrate") == sent


def test_all_faults_of_a_form_are_shown_each_at_its_field(
    manager: DevManager, store: Store
) -> None:
    bad = {"server_port": "x", "parallel": "0", "bitrate": "fast", "omit": "601", "dscp": "64"}
    form = {**FORM, "server_agent_id": "2", **bad, "ip_version": "5", "bind": "eth0"}
    answer = post(manager, form=form)
    assert answer.status_code == 422
    assert "Not started. Correct 8 fields below." in text(answer)
    faults = dict(
        re.findall(r'<small id="(\w+)-about"><span class="failed">(.*?)</span>', answer.text)
    )
    assert {name: unescape(words) for name, words in faults.items()} == {
        "parallel": "Streams must be a whole number from 1 to 128.",
        "server_port": "Port must be a whole number from 1 to 65535.",
        "bitrate": "Bitrate must be a whole number from 0 to 10000000000000.",
        "omit": "Seconds to omit must be a whole number from 0 to 600.",
        "dscp": "DSCP must be a whole number from 0 to 63 or a DSCP class such as af11.",
        "ip_version": "IP version: choose one from the list.",
        "bind": "Bind must be an IP address.",
        "server_agent_id": "'a2' has never registered. Start it with this Manager's URL,"
        " AGENT_NAME=a2 and its key.",
    }
    assert store.exercises.all() == []


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("server_port", "0", "Port must be a whole number from 1 to 65535."),
        ("server_port", "http", "Port must be a whole number from 1 to 65535."),
        ("parallel", "129", "Streams must be a whole number from 1 to 128."),
        ("time_seconds", "", "Seconds must be a whole number from 1 to 86400."),
        ("time_seconds", "1.5", "Seconds must be a whole number from 1 to 86400."),
        ("protocol", "sctp", "Protocol: choose one from the list."),
        ("direction", HOSTILE, "Direction: choose one from the list."),
        ("dscp", "efx", "DSCP must be a whole number from 0 to 63 or a DSCP class such as af11."),
        ("client_agent_id", "a2", "Client: choose one from the list."),
        ("server_agent_id", None, "Server: choose one from the list."),
    ],
)
def test_a_form_with_a_bad_value_is_shown_again_with_the_reason(
    manager: DevManager, store: Store, field: str, value: str | None, words: str
) -> None:
    form = {name: given for name, given in {**FORM, field: value}.items() if given is not None}
    answer = post(manager, form=form)
    assert answer.status_code == 422
    assert words in text(answer)
    wrong = [
        attributes for _, attributes in Tags(answer.text).found if "aria-invalid" in attributes
    ]
    assert [each["name"] for each in wrong] == [field]
    assert "<img" not in answer.text and "http-equiv" not in answer.text
    assert store.exercises.all() == []


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"server_agent_id": "2"}, 409, "'a2' has never registered. Start it"),
        ({"client_agent_id": "9"}, 422, "Client: choose one from the list."),
        # The third one is disabled, and no longer in the list.
        ({"server_agent_id": "3"}, 422, "Server: choose one from the list."),
        ({"server_port": "5300"}, 409, "port 5300 of 'a1' is reserved by test 1."),
        ({"ip_version": "6"}, 422, "The server's address is 127.0.0.1."),
        ({"bind": "fe80::1%eth0"}, 422, "The server's address is 127.0.0.1."),
    ],
)
def test_a_conflict_is_explained_and_leaves_nothing_behind(
    manager: DevManager, store: Store, changes: dict[str, str], status: int, words: str
) -> None:
    store.agents.update(store.agents.add("retired", "key-3").id, {"disabled": True})
    store.exercises.create("never started")
    store.exercises.add_test(1, 1, 1, 5300)
    answer = post(manager, form={**FORM, **changes})
    assert answer.status_code == status
    assert words in text(answer)
    assert [each.id for each in store.exercises.all() if not each.ended_at] == [1]
    assert len(store.exercises.tests()) == 1


def test_an_agent_may_take_part_in_several_tests(manager: DevManager, store: Store) -> None:
    for port in ("5201", "5202"):
        assert post(manager, form={**FORM, "server_port": port}).status_code == 303
    stopped = post(manager, "/tests/1/stop")
    assert (stopped.status_code, stopped.headers["Location"]) == (303, "/?test=1#result")
    assert store.exercises.get(1).ended_at is not None
    assert store.exercises.get(2).ended_at is None


def test_a_test_that_does_not_exist_is_reported(manager: DevManager) -> None:
    for asked in ("99", "x", "", "9" * 5000):
        answer = get(manager, f"/?test={asked}")
        assert answer.status_code == 404
        assert "no test has the id" in text(answer)
        assert "<title>Not found: dev Manager</title>" in answer.text
    assert post(manager, "/tests/99/stop").status_code == 404
    assert "<title>Not started: " in post(manager, form={**FORM, "parallel": "x"}).text


def test_where_no_older_tests_are_the_newest_are_shown(manager: DevManager, store: Store) -> None:
    make_test(store)
    assert "1: a2 to a1" in text(get(manager, "/?before=1"))


@pytest.mark.parametrize(("stopped", "is_told"), [(False, True), (True, False)])
def test_why_its_server_ended_is_told_of_a_failure_unless_somebody_wanted_it(
    manager: DevManager, store: Store, stopped: bool, is_told: bool
) -> None:
    test = make_test(store)
    ended = {"ended": "it fell over", "stopped": stopped}
    report(store, test.server_task_id, {"agent": ended})
    assert "it fell over" not in text(get(manager))
    report(store, test.client_task_id, {"agent": {"error_class": "peer_lost"}}, "no peer")
    shown = text(get(manager))
    assert ("Server on a1: it fell over The agent's log" in shown) == is_told
    assert "Client on a2: no peer" in shown


@pytest.mark.parametrize(
    "origin", ["", "null", "http://evil.example", "http://127.0.0.1:1", "http://localhost"]
)
def test_a_form_from_another_page_is_refused(
    manager: DevManager, store: Store, origin: str
) -> None:
    test = make_test(store)
    for path in ("/", f"/tests/{test.id}/stop"):
        assert post(manager, path, headers={"Origin": origin}).status_code == 403
    assert len(store.exercises.all()) == 1 and store.exercises.get(1).ended_at is None


def test_a_form_without_an_origin_is_refused(manager: DevManager, store: Store) -> None:
    answer = requests.post(manager.url, data=FORM, timeout=DEADLINE_SECONDS)
    assert (answer.status_code, store.exercises.all()) == (403, [])


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "[::1", "10.0.0.1", "a@localhost"]
)
def test_a_foreign_host_name_is_refused(manager: DevManager, host: str) -> None:
    answer = get(manager, headers={"Host": host})
    assert answer.status_code == 403
    assert "a1" not in answer.text
    assert post(manager, headers={"Host": host, "Origin": f"http://{host}"}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.2", "[::1]:8000"])
def test_loopback_names_are_answered(manager: DevManager, host: str) -> None:
    assert get(manager, headers={"Host": host}).status_code == 200


def test_the_page_asks_for_a_chosen_password(store: Store) -> None:
    manager = DevManager(store, "127.0.0.1", 0, admin_password="pässword")
    manager.start()
    try:
        for wrong in ("", "admin:admin123", "root:pässword", "admin", "admin:"):
            given = {"Authorization": "Basic " + b64encode(wrong.encode()).decode()}
            for headers in (given, {}):
                answer = get(manager, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["WWW-Authenticate"].startswith("Basic ")
            assert post(manager, headers=given).status_code == 401
        assert get(manager, headers={"Authorization": "Basic \xff\xfe"}).status_code == 401
        right = {"Authorization": "Basic " + b64encode("admin:pässword".encode()).decode()}
        assert get(manager, headers=right).status_code == 200
        assert post(manager, headers={**right, "Origin": "http://evil.example"}).status_code == 403
        assert post(manager, headers=right).status_code == 303
    finally:
        manager.stop()


def test_what_agents_send_is_shown_as_text_and_never_as_markup(
    manager: DevManager, store: Store
) -> None:
    store.agents.get(2).name = HOSTILE
    store.agents.register(2, HOSTILE, HOSTILE)
    test = make_test(store)
    trouble = {"agent": {"warnings": [HOSTILE], "iperf3_version": HOSTILE, "error_class": HOSTILE}}
    report(store, test.client_task_id, trouble, error=HOSTILE)
    page = get(manager)
    assert text(page).count("alert(1)") >= 8
    tags = Tags(page.text).found
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not [tag for tag, _ in tags if tag == "img"]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]


def test_a_running_test_has_a_progress_bar_and_its_rate(manager: DevManager, store: Store) -> None:
    test = make_test(store)
    report(store, test.server_task_id, {})
    until(lambda: store.tasks.get(2).status == "pending", DEADLINE_SECONDS)
    assert "waiting for a2, which is offline" in text(get(manager))
    store.tasks.claim(2)
    assert "about to begin" in text(get(manager))
    store.tasks.start(2, test.client_task_id)
    row = HeartbeatRow("client", 5201, 1, task_id=test.client_task_id, bits_per_second=9.4e9)
    store.agents.heartbeat(2, "127.0.0.1", [row])
    page = get(manager)
    assert "running" in text(page) and "of 10 s, 9.40 Gbit/s now" in text(page)
    bars = [attributes for tag, attributes in Tags(page.text).found if tag == "progress"]
    assert [bar["max"] for bar in bars] == ["10", "10"]
    assert 'http-equiv="refresh"' in page.text


def test_it_stops_reloading_once_there_is_nothing_to_wait_for(
    manager: DevManager, store: Store
) -> None:
    assert 'http-equiv="refresh"' not in get(manager).text
    post(manager)
    assert 'http-equiv="refresh"' in get(manager).text
    assert 'http-equiv="refresh"' not in post(manager).text
    post(manager, "/tests/1/stop")
    assert 'http-equiv="refresh"' not in get(manager).text


def test_a_failure_says_what_to_do(manager: DevManager, store: Store) -> None:
    test = make_test(store)
    report(store, test.server_task_id, {"agent": {"error_class": "port_in_use"}}, "port in use")
    report(store, test.client_task_id, {"agent": {"error_class": "unheard of"}}, "no luck")
    shown = text(get(manager))
    assert "Server on a1: port in use Choose another port, or stop what listens" in shown
    assert "Client on a2: no luck The agent's log has the whole story of the task" in shown


def test_a_client_that_reached_another_server_has_not_succeeded(
    manager: DevManager, store: Store
) -> None:
    test = make_test(store)
    report(store, test.server_task_id, None, "port in use")
    report(store, test.client_task_id, {"end": {"sum_sent": {"bits_per_second": 5e9}}})
    assert "client succeeded, server failed , 5.00 Gbit/s sent" in text(get(manager))


@pytest.mark.parametrize(
    ("client", "ended", "phase"),
    [
        ({"agent": {"error_class": "killed"}}, "stopped by kill_all", "stopped"),
        # Its server was stopped a little earlier.
        ({"agent": {"error_class": "peer_lost"}}, "stopped by kill_all", "stopped"),
        # An agent of another make has no class.
        (None, "", "stopped"),
        ({"agent": {"error_class": "peer_lost"}}, "", "failed"),
        ({"agent": {"error_class": "timed_out"}}, "stopped by kill_all", "failed"),
        ({"agent": {"error_class": "unreachable"}}, "stopped by kill_all", "failed"),
        ({"agent": {"error_class": "interrupted"}}, "stopped by kill_all", "failed"),
    ],
)
def test_a_stop_is_no_failure_and_a_failure_is_no_stop(
    manager: DevManager, store: Store, client: Any, ended: str, phase: str
) -> None:
    test = make_test(store)
    report(store, test.server_task_id, {"agent": {"ended": ended}})
    until(lambda: store.tasks.claim(2), DEADLINE_SECONDS)
    store.tasks.start(2, test.client_task_id)
    store.exercises.stop(test.exercise_id)
    raw = msgspec.Raw(msgspec.json.encode(client))
    store.tasks.report(2, test.client_task_id, "failed", raw, "cut short")
    shown = text(get(manager))
    assert f"Test 1 {phase}: " in shown
    assert ("Client on a2: cut short" in shown) == (phase == "failed")


def test_an_agent_that_was_cut_off_until_its_exercise_had_ended_was_not_stopped(
    manager: DevManager, store: Store
) -> None:
    test = make_test(store)
    report(store, test.server_task_id, {"agent": {"ended": "stopped by kill_all"}})
    until(lambda: store.tasks.claim(2), DEADLINE_SECONDS)
    store.tasks.start(2, test.client_task_id).started_at = utc_now() - timedelta(hours=1)
    until(lambda: store.exercises.get(1).ended_at, DEADLINE_SECONDS)
    assert store.tasks.get(2).status == "timed_out"
    raw = msgspec.Raw(b'{"agent": {"error_class": "peer_lost"}}')
    store.tasks.report(2, test.client_task_id, "failed", raw, "its cable was pulled")
    assert "Test 1 failed: " in text(get(manager))
    assert "Client on a2: its cable was pulled" in text(get(manager))


def test_the_curve_and_the_sums_of_a_udp_test(manager: DevManager, store: Store) -> None:
    intervals = [
        {"sum": {"start": at, "end": at + 1, "bits_per_second": rate}}
        for at, rate in enumerate((2e8, 4e8, 3e8))
    ]
    sent = {"bits_per_second": 3e8, "bytes": 112.5e6, "jitter_ms": 0, "lost_packets": 0}
    lossy = {"jitter_ms": 0.25, "lost_packets": 1000, "packets": 1000, "lost_percent": 100}
    end = {"sum": lossy, "sum_sent": sent, "sum_received": {"bits_per_second": 2.5e8, **lossy}}
    test = make_test(store, udp=True)
    remark = "The receiver lost all."
    result = {"intervals": intervals, "end": end, "agent": {"warnings": [remark]}}
    report(store, test.client_task_id, result)
    page = get(manager)
    shown = text(page)
    assert "succeeded , 250 Mbit/s, 100 % lost" in shown
    assert (
        "sent by a2 300 Mbit/s 112 MB received by a1 250 Mbit/s 0.250 ms 1000 of 1000 (100 %)"
        in (shown)
    )
    assert f"Note: {remark}" in shown
    words = "at least 200 Mbit/s, on average 300 Mbit/s, at most 400 Mbit/s"
    assert f'role="img" aria-label="Throughput over 3 s: {words}"' in page.text
    assert "1.0 to 2.0 400 Mbit/s" in shown
    assert "<title>1.0 to 2.0 s: 400 Mbit/s</title>" in page.text
    labels = re.findall(r"<text [^>]*>([^<]*)</text>", page.text)
    seconds = ["0 s", "0.5 s", "1 s", "1.5 s", "2 s", "2.5 s", "3 s"]
    assert labels == ["0", "100", "200", "300", "400", *seconds, "Mbit/s"]


def test_each_direction_of_a_curve_and_of_the_totals_has_its_ends(
    manager: DevManager, store: Store
) -> None:
    one = {"start": 0, "end": 1, "seconds": 1, "bits_per_second": 1e9, "bytes": 125e6}
    back = {**one, "bits_per_second": 2e9, "bytes": 250e6}
    end = {"sum_sent": one, "sum_received": one}
    end |= {f"{name}_bidir_reverse": back for name in end}
    test = make_test(store, options={"bidir": True})
    interval = {"sum": one, "sum_bidir_reverse": back}
    report(store, test.client_task_id, {"start": {}, "intervals": [interval], "end": end})
    shown = text(get(manager))
    assert "Throughput as a2 measured it: a2 to a1 , a1 to a2" in shown
    assert "sent by a2 1.00 Gbit/s" in shown and "sent by a1 2.00 Gbit/s" in shown
    assert "a1 to a2 Seconds Throughput 0.0 to 1.0 2.00 Gbit/s" in shown


def test_what_limited_a_test_is_said_by_both_halves_together(
    manager: DevManager, store: Store
) -> None:
    test = make_test(store)
    client, server = diagnose(sender(**QUEUE, retransmitted=10)), diagnose(receiver())
    report(store, test.client_task_id, {"agent": {"diagnosis": msgspec.to_builtins(client)}})
    shown = text(get(manager))
    assert f"Perhaps limited by path capacity: {client.words}" in shown
    report(store, test.server_task_id, {"agent": {"diagnosis": msgspec.to_builtins(server)}})
    both = diagnose(sender(**QUEUE, retransmitted=10), receiver())
    assert f"Limited by path capacity: {both.words}" in text(get(manager))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["start", "end", "seconds", "bits_per_second", "sum", "bytes", "omitted"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)
numbers = st.floats(0, allow_nan=False, allow_infinity=False)
sums = st.fixed_dictionaries(
    {"start": numbers, "end": numbers, "bits_per_second": numbers},
    optional={"retransmits": st.integers(), "lost_packets": numbers, "jitter_ms": numbers},
)
results = st.fixed_dictionaries(
    {},
    optional={
        "start": json_values,
        "intervals": json_values | st.lists(st.fixed_dictionaries({"sum": sums}), max_size=5),
        "end": json_values | st.fixed_dictionaries({"sum_sent": sums, "sum_received": sums}),
        "agent": json_values,
    },
)


@given(result=results | json_values)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_result_of_an_agent_breaks_the_page(
    manager: DevManager, store: Store, result: Any
) -> None:
    if not store.exercises.tests():
        report(store, make_test(store).client_task_id, {})
    store.tasks.get(2).result = msgspec.Raw(msgspec.json.encode(result))
    assert get(manager).status_code == 200
