"""What is kept of the tests with each peer: for whom, under which name, and for how long."""

import pytest
from msgspec import Raw

from agent.metrics import Metrics
from agent.peers import FORGOTTEN_AFTER, OTHER, PEERS_KEPT, Peers
from agent.protocol import Figures, Flow, Outcome, Report, Task
from agent.text import to_json
from tests.support.clock import Clock, install_clock

CLIENT, SERVER = "iperf_client_run", "iperf_server_start"


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that only the test moves."""
    return install_clock(monkeypatch, "peers.time")


def note(peers: Peers, peer: str, rate: float, protocol: str = "tcp") -> None:
    """A test that this host's client had."""
    peers.note(peer, ("client", "forward", protocol), {"sent": rate, "rates": [rate] * 120})


def sent(peers: Peers, protocol: str = "tcp") -> dict[str, float]:
    """What was sent in the last test with each peer."""
    return {peer: figures["sent"] for peer, kind, figures in peers.tests() if kind[-1] == protocol}


def test_those_tested_last_have_a_name_and_the_rest_shares_one(clock: Clock) -> None:
    peers = Peers()
    for number in range(300):
        clock.now += 1
        note(peers, f"10.0.0.{number}", number)
    # Tested once more, it is no longer among the first that lose their name.
    clock.now += 1
    note(peers, "10.0.0.100", 1000)
    clock.now += 1
    note(peers, "10.0.1.0", 2000)
    named = {f"10.0.0.{number}": number for number in range(102, 300)}
    assert len(named) + 2 == PEERS_KEPT
    assert sent(peers) == {**named, "10.0.0.100": 1000, "10.0.1.0": 2000, OTHER: 101}


def test_what_the_rest_shows_is_its_newest_test_of_each_kind(clock: Clock) -> None:
    peers = Peers()
    note(peers, "first", 1)
    clock.now += 1
    note(peers, "second", 2)
    clock.now += 1
    note(peers, "first", 3, "udp")
    for number in range(PEERS_KEPT):
        note(peers, f"10.0.0.{number}", number)
    # `second` lost its name before `first`, whose TCP test was the older one.
    assert (sent(peers)[OTHER], sent(peers, "udp")[OTHER]) == (2, 3)


def test_a_host_that_is_called_as_the_rest_is_one_of_it(clock: Clock) -> None:
    peers = Peers()
    note(peers, OTHER, 1)
    for number in range(PEERS_KEPT):
        note(peers, f"10.0.0.{number}", number)
    assert len(sent(peers)) == PEERS_KEPT + 1 and sent(peers)[OTHER] == 1
    clock.now += 1
    note(peers, "another", 5)
    assert sent(peers)[OTHER] == 0
    assert len({peer for peer, *_ in peers.tests()}) == len(peers.tests()) == PEERS_KEPT + 1


def test_figures_go_a_day_after_their_test(clock: Clock) -> None:
    peers = Peers()
    for number in range(300):
        note(peers, f"10.0.0.{number}", number)
    clock.now += FORGOTTEN_AFTER - 1
    note(peers, "10.0.0.299", 5, "udp")
    assert len(peers.tests()) == PEERS_KEPT + 2
    clock.now += 1
    assert [(peer, kind[-1]) for peer, kind, _ in peers.tests()] == [("10.0.0.299", "udp")]
    clock.now += FORGOTTEN_AFTER
    assert peers.tests() == []
    # Nothing is left in memory either.
    assert not any(vars(peers).values())


def test_only_the_figures_that_are_shown_take_memory(clock: Clock) -> None:
    peers = Peers()
    note(peers, "10.0.0.1", 1)
    assert peers.tests() == [
        (
            "10.0.0.1",
            ("client", "forward", "tcp"),
            {"at": clock.now, "reported": clock.time(), "sent": 1},
        )
    ]


def test_both_sides_and_both_ways_are_told_apart() -> None:
    metrics, report = Metrics(), Report()
    figures = Figures(sent=1, direction="bidirectional", backward=Flow(sent=2), peer="10.0.0.2")
    payload = Raw(
        to_json({"server_ip": "host.example", "port": 5201, "bidir": True, "parallel": 3})
    )
    asked, served = Task(1, CLIENT, payload), Task(2, SERVER, Raw(to_json({"port": 5202})))
    metrics.count_outcome(asked, Outcome("succeeded", report, figures=figures), 1.0)
    metrics.count_outcome(served, Outcome("succeeded", report, figures=figures, final=False), 1.0)
    # The end of a server, which has the figures of its newest test once more.
    metrics.count_outcome(served, Outcome("succeeded", report, figures=figures), 1.0)
    assert {(peer, *kind): seen["sent"] for peer, kind, seen in metrics.peers.tests()} == {
        ("host.example", "client", "bidirectional", "tcp"): 1,
        ("host.example", "client", "bidirectional_reverse", "tcp"): 2,
        ("10.0.0.2", "server", "bidirectional", "tcp"): 1,
        ("10.0.0.2", "server", "bidirectional_reverse", "tcp"): 2,
    }
    rows = [(row.peer, row.port, row.direction, row.streams) for row in metrics.results]
    assert rows == [
        ("host.example", 5201, "bidirectional", 3),
        ("10.0.0.2", 5202, "bidirectional", 1),
        ("", 5202, "", 0),
    ]


@pytest.mark.parametrize(
    ("asked", "peer"),
    [
        ("localhost", "localhost"),
        ("LocalHost.", "localhost"),
        ("FE80::1%Eth0", "fe80::1%Eth0"),
        ("2001:0db8:0::1", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_a_peer_has_one_name_however_it_is_spelt(asked: str, peer: str) -> None:
    metrics, payload = Metrics(), Raw(to_json({"server_ip": asked, "port": 5201}))
    metrics.count_outcome(Task(1, CLIENT, payload), Outcome("succeeded", Report()), 1.0)
    assert [row.peer for row in metrics.results] == [peer]


def test_the_end_of_a_server_is_no_new_test_however_many_others_came_between(clock: Clock) -> None:
    metrics, figures = Metrics(), Figures(received=1, peer="10.0.0.2")
    first = Outcome("succeeded", Report(), figures=figures, final=False)
    end = Outcome("succeeded", Report(ended="stopped by kill_all"), figures=figures)
    tasks = [Task(number, SERVER, Raw(to_json({"port": number}))) for number in range(1, 101)]
    for task in tasks:
        metrics.count_outcome(task, first, 1.0)
    (before,) = metrics.peers.tests()
    clock.now += 10
    for task in tasks:
        metrics.count_outcome(task, end, 1.0)
    assert metrics.peers.tests() == [before]
