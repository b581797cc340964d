"""The figures of a result: right whatever two versions of iperf3 make of a test."""

import msgspec
import pytest

from agent.iperf3 import verdict
from agent.iperf3.features import Features
from agent.iperf3.figures import figures_in, figures_of
from agent.iperf3.summary import End, Request, Start, Summary, Sums, read_intervals, read_summary
from agent.iperf3.verdict import judge_client, last_served
from agent.iperf3.warnings import warnings_about
from agent.protocol import Figures, Flow, Report
from tests.support.mixed_fleet import DOWN, PAIRS, UP, document, figures, summary
from tests.support.recorded_runs import DATA, VERSIONS, doubts, run

PAIR_IDS = ["-to-".join(pair) for pair in PAIRS]
CUT = DATA.parent / "cut"
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=PAIR_IDS)
Pair = tuple[str, str]


def is_older(version: str) -> bool:
    """Whether it is older than 3.13, which counts in another way."""
    return version in ("3.9", "3.12")


@every_pair
@pytest.mark.parametrize("case", ["forward", "bidir", "omit", "calm"])
def test_the_client_tells_the_loss_that_the_server_has_counted(pair: Pair, case: str) -> None:
    found = figures(pair, case, "client")
    truth = summary(pair, case, "server").end.sum
    assert truth is not None and truth.lost_percent is not None
    if (pair[0], case) == ("3.9", "omit"):
        # It has a single count, which goes beyond what was sent.
        assert (found.lost_percent, found.lost_packets, found.received) == (None, None, None)
    else:
        assert found.lost_percent == pytest.approx(truth.lost_percent, abs=1.2)
        assert found.lost_percent == pytest.approx(
            100 * (found.lost_packets or 0) / (found.packets or 1)
        )
    assert figures(pair, case, "server").lost_percent == pytest.approx(truth.lost_percent, abs=0.1)


@every_pair
@pytest.mark.parametrize("side", ["client", "server"])
def test_both_sides_say_how_many_seconds_were_omitted(pair: Pair, side: str) -> None:
    assert (figures(pair, "omit", side).omitted or 0) > 0
    assert figures(pair, "forward", side).omitted is None


@every_pair
@pytest.mark.parametrize("case", ["forward", "bidir", "reverse"])
def test_the_headline_is_the_rate_at_the_receiver_and_knows_both_directions(
    pair: Pair, case: str
) -> None:
    client, server = figures(pair, case, "client"), figures(pair, case, "server")
    flows = [*zip(client.flows, server.flows, strict=True)]
    assert [flow for flow, _ in flows][1:] == ([client.backward] if case == "bidir" else [])
    assert client.direction == server.direction
    assert client.direction == ("bidirectional" if case == "bidir" else case)
    assert (client.protocol, server.protocol) == ("udp", "udp")
    for at, (here, there) in enumerate(flows):
        from_client = (case, at) in (("forward", 0), ("bidir", 0))
        assert here.sent == pytest.approx(2e8, rel=0.06)
        assert here.received == pytest.approx(DOWN if from_client else UP, rel=0.06)
        assert 70 < (here.lost_percent or 0) < 90
        own, other = (there.received, there.sent) if from_client else (there.sent, there.received)
        assert other is None, "a server does not know the other side's figures"
        assert own == pytest.approx(here.received if from_client else 2e8, rel=0.06)
        assert from_client or (there.lost_percent, there.jitter_ms) == (None, None)
    words = client.of_each_way(Flow.headline)
    assert words.count("bit/s") == len(flows) and "sent" not in words


@every_pair
def test_a_count_that_does_not_fit_is_a_warning_that_names_the_cause(pair: Pair) -> None:
    mine = Features("iperf3", pair[0], {})
    mixed = not is_older(pair[0]) and is_older(pair[1])
    for case in ("forward", "bidir", "reverse", "calm"):
        words = " ".join(doubts(summary(pair, case, "client"), mine))
        expected = mixed and case in ("forward", "bidir")
        assert ("the server's iperf3 is older than 3.13" in words) == expected
        assert ("which is wrong" in words) == expected
        count = {"bidir": 2, "calm": 0}.get(case, 1)
        assert words.count("The receiver lost ") == count
    words = " ".join(doubts(summary(pair, "omit", "client"), mine))
    assert ("lost in the omitted seconds" in words) == any(map(is_older, pair))
    assert "113" not in words


@pytest.mark.parametrize("case", ["calm", "bidir", "reverse"])
def test_datagrams_behind_the_last_that_arrived_are_a_warning(case: str) -> None:
    """A receiver counts up to that one: of a path that dies in the middle nothing is lost."""
    edited = msgspec.json.decode(document(("3.22", "3.22"), case, "client"))
    mine = Features("iperf3", "3.22", {})
    healthy = read_summary(msgspec.json.encode(edited))
    assert healthy and "had not arrived" not in " ".join(doubts(healthy, mine))
    for name in ("sum_received", "sum_received_bidir_reverse"):
        if got := edited["end"].get(name):
            got |= {"bytes": got["bytes"] / 2, "packets": got["packets"] // 2, "lost_packets": 0}
    dead = read_summary(msgspec.json.encode(edited))
    words = " ".join(doubts(dead or Summary(), mine))
    assert words.count("datagrams had not arrived at the end") == (2 if case == "bidir" else 1)


def test_counts_that_fit_neither_version_are_a_warning_too() -> None:
    found = summary(("3.12", "3.12"), "forward", "client")
    wrong = msgspec.structs.replace(found.end.sum or Sums(), lost_packets=5, lost_percent=0.1)
    found = msgspec.structs.replace(found, end=msgspec.structs.replace(found.end, sum=wrong))
    first, second = doubts(found, Features("iperf3", "3.12", {}))
    assert "5 of 34517" in first and "does not fit what the receiver got" in first
    assert second.startswith("The receiver lost 75.2 %")


def test_a_small_loss_of_3_9_with_omitted_seconds_is_not_known() -> None:
    edited = msgspec.json.decode(document(("3.9", "3.9"), "omit", "client"))
    edited["end"]["sum"] |= {"lost_packets": 500, "lost_percent": 1.45}
    found = read_summary(msgspec.json.encode(edited))
    assert found and figures_of(found).lost_percent is None
    assert figures_of(found).received is None, "it would be computed from that loss"
    (words,) = doubts(found, Features("iperf3", "3.9", {}))
    assert "500 of " in words and "lost in the omitted seconds" in words


def test_a_server_of_3_9_knows_what_arrived_after_omitted_seconds() -> None:
    """Also by its sum alone, if its document is too large to read the intervals."""
    alone = figures_of(summary(("3.12", "3.9"), "omit", "server"))
    whole = figures(("3.12", "3.9"), "omit", "server")
    assert alone.received and alone.received == pytest.approx(whole.received, rel=0.01)


@pytest.mark.parametrize("count", [-502, 2**64 - 502])
def test_a_count_that_ran_below_0_is_none(count: int) -> None:
    """As that of an iperf3 3.12 of whose datagrams none arrives after the omitted seconds."""
    edited = msgspec.json.decode(document(("3.22", "3.12"), "omit", "client"))
    edited["end"]["sum_received"] |= {"bytes": 0, "packets": count, "lost_packets": 0}
    found = figures_in(msgspec.Raw(msgspec.json.encode(edited)))
    sent = (found.sent_bytes or 0) / edited["start"]["test_start"]["blksize"]
    assert found.lost_packets == found.packets == pytest.approx(sent)
    assert found.lost_percent == 100


def test_what_a_receiver_without_copies_counts_is_not_what_arrived() -> None:
    """iperf3 3.22 counts 16 bytes of each datagram then, and no datagram."""
    edited = msgspec.json.decode(document(("3.22", "3.22"), "calm", "client"))
    edited["end"]["sum"] |= {"lost_packets": 0, "lost_percent": 0}
    edited["end"]["sum_received"] |= {"bytes": 4016, "packets": 0, "lost_packets": 0}
    judged = judge_client(0, msgspec.json.encode(edited), "")
    found = judged.figures
    assert judged.ok and judged.summary and found and found.sent
    assert (found.received, found.received_bytes, found.jitter_ms) == (None, None, None)
    assert (found.lost_packets, found.packets, found.lost_percent) == (None, None, None)
    assert not doubts(judged.summary, Features("iperf3", "3.22", {}))


def test_a_receiver_whose_intervals_have_nothing_has_received_nothing() -> None:
    """iperf3 3.9 has no other count of it."""
    edited = msgspec.json.decode(document(("3.9", "3.9"), "reverse", "client"))
    for each in edited["intervals"]:
        each["sum"]["bytes"] = 0
    found = figures_in(msgspec.Raw(msgspec.json.encode(edited)))
    assert found.sent_bytes and (found.received_bytes, found.received) == (0, 0)


def test_a_client_of_3_9_does_not_know_whether_anything_arrived_if_no_datagram_was_counted() -> (
    None
):
    """Its document says that 0 of 1250 were lost. They were all, or the server counts none."""
    judged = judge_client(0, document(("3.9", "3.12"), "lost", "client"), "")
    found = judged.figures
    assert judged.ok and judged.summary and found and found.sent
    assert judged.summary.end.sum and judged.summary.end.sum.lost_percent == 0
    assert (found.received, found.received_bytes, found.jitter_ms) == (None, None, None)
    assert (found.lost_packets, found.packets, found.lost_percent) == (None, None, None)
    assert doubts(judged.summary, Features("iperf3", "3.9", {})) == [
        "The sender sent 1250000 bytes and the receiver reports none."
    ]


@pytest.mark.parametrize("is_large", [False, True])
def test_what_a_path_back_swallows_before_3_9_counts_it_is_not_0_percent(is_large: bool) -> None:
    """That iperf3 says that 0 of 1281 were lost, which is the sender's count."""
    found = figures(("3.9", "3.12"), "dead", "client")
    if is_large:
        found = figures_of(summary(("3.9", "3.12"), "dead", "client"))
    assert found.sent_bytes == 1281000
    arrived = (None, None, None) if is_large else (0, 1281, 100)
    assert (found.received_bytes, found.lost_packets, found.lost_percent) == arrived


def test_a_receiver_of_3_9_counts_up_to_the_last_datagram_before_its_path_died() -> None:
    """As newer ones do; its document has the sender's count, 1902, of which 0 were lost."""
    found = figures(("3.9", "3.12"), "dying", "client")
    assert (found.sent_bytes, found.received_bytes) == (1902000, 778000)
    assert (found.lost_packets, found.packets) == (0, 778)
    told = summary(("3.9", "3.12"), "dying", "client")
    assert warnings_about(told, found, Features("iperf3", "3.9", {}), Report()) == [
        "The last 1124 of 1902 datagrams had not arrived at the end: no loss counts them."
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_of_no_datagrams_none_can_be_lost(version: str) -> None:
    """As in a server that got none, or a client that was ended before the first."""
    for case in ("udp-reverse", "server-udp"):
        edited = msgspec.json.decode(run(version, case).stdout.split(b"\n}")[0] + b"}")
        nothing = {"bytes": 0, "packets": 0, "lost_packets": 0, "lost_percent": 0, "jitter_ms": 0}
        for sums in (edited["end"], *edited["intervals"]):
            for name in ("sum", "sum_sent", "sum_received"):
                if name in sums:
                    sums[name] |= nothing
        edited["error"] = "interrupt - the client has terminated"
        found = figures_in(msgspec.Raw(msgspec.json.encode(edited)))
        assert (found.lost_percent, found.lost_packets, found.packets) == (None, None, None)


@pytest.mark.parametrize("percent", [-0.1, 100.1, 1e300])
def test_a_loss_that_cannot_be_never_shows(percent: float) -> None:
    told = Sums(lost_percent=percent, lost_packets=2, packets=1)
    found = figures_of(Summary(end=End(sum=told)))
    assert (found.lost_percent, found.lost_packets, found.packets) == (None, None, None)


@pytest.mark.parametrize("version", VERSIONS)
def test_both_directions_of_a_test_have_their_own_figures(version: str) -> None:
    client, server = (run(version, case).stdout for case in ("tcp-bidir", "server-tcp-bidir"))
    found, seen = judge_client(0, client, "").figures, last_served(server).figures
    assert found and found.backward and seen and seen.backward
    assert found.direction == seen.direction == "bidirectional"
    assert (seen.sent, seen.backward.received) == (None, None)
    assert seen.received == found.received and seen.received_bytes == found.received_bytes
    assert seen.backward.sent == pytest.approx(found.backward.sent, rel=0.05)
    assert found.rates and found.backward.rates and len(found.rates) == len(found.backward.rates)
    if version == "3.9":
        # Every sum stands there twice, and these two tell them apart.
        assert (found.sent_bytes, found.backward.sent_bytes) == (6291456, 6553600)
        assert (found.retransmits, found.backward.retransmits) == (0, 1)
        assert found.rates[0] == pytest.approx(50325156.8)
        assert found.backward.rates[0] == pytest.approx(52422038.4)


@pytest.mark.parametrize("form", [str, lambda text: text.replace("\t", "").replace("\n", "")])
def test_sums_of_one_name_are_told_apart_in_any_layout(form: "type[str]") -> None:
    text = form(run("3.9", "tcp-bidir").stdout.decode())
    found = figures_in(msgspec.Raw(text.encode()))
    assert found.backward and found.backward.sent_bytes == 6553600
    assert found.backward.rates and found.backward.rates != found.rates


@pytest.mark.parametrize("version", VERSIONS)
def test_what_nobody_has_reported_is_empty_and_not_0(version: str) -> None:
    stopped = judge_client(1, run(version, "client-term").stdout, "").figures
    assert stopped and stopped.sent and (stopped.received, stopped.received_bytes) == (None, None)
    assert stopped.of_each_way(Flow.headline).endswith("bit/s sent")
    for case in ("server-tcp", "server-udp", "server-term", "server-of-client-term"):
        served = last_served(run(version, case).stdout).figures
        assert served and served.received and (served.sent, served.sent_bytes) == (None, None)
    for case in ("server-tcp-reverse", "server-udp-reverse"):
        if (DATA / version / f"{case}.stdout").exists():
            served = last_served(run(version, case).stdout).figures
            assert served and served.sent and (served.received, served.jitter_ms) == (None, None)
            assert (served.lost_percent, served.packets) == (None, None)


@pytest.mark.parametrize("case", ["forward", "bidir"])
def test_what_a_client_of_3_9_has_sent_has_not_arrived_before_the_server_says_so(case: str) -> None:
    """Until then its single sum for UDP is its own, with nothing lost."""
    edited = msgspec.json.decode(document(("3.9", "3.9"), case, "client"))
    edited["error"] = "interrupt - the client has terminated"
    edited["end"]["sum"] |= {"jitter_ms": 0, "lost_packets": 0, "lost_percent": 0}
    found = figures_in(msgspec.Raw(msgspec.json.encode(edited)))
    assert found.sent and (found.received, found.received_bytes, found.jitter_ms) == (None,) * 3
    assert (found.lost_packets, found.packets, found.lost_percent) == (None, None, None)
    assert found.backward is None or found.backward.received


@pytest.mark.parametrize("sent", [0, 1])
def test_a_client_that_was_ended_before_its_test_has_sent_nothing_that_was_measured(
    sent: int,
) -> None:
    edited = msgspec.json.decode(run("3.12", "client-term").stdout)
    edited["end"]["sum_sent"] |= {"bytes": sent, "bits_per_second": sent, "retransmits": 15}
    found = figures_in(msgspec.Raw(msgspec.json.encode(edited)))
    expected = (1, 15) if sent else (None, None)
    assert (found.sent, found.retransmits) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_the_bitrate_that_was_asked_for_is_that_of_all_streams(version: str) -> None:
    """3.9 has it for TCP alone, and in another place."""
    for case, streams in (("tcp", 1), ("tcp-parallel", 4), ("udp", 1)):
        found = judge_client(0, run(version, case).stdout, "").figures
        known = (version, case) != ("3.9", "udp")
        assert found and found.asked == (streams * 50e6 if known else None)


@pytest.mark.parametrize("version", VERSIONS)
def test_figures_of_both_sides_agree_about_the_receiver(version: str) -> None:
    for case in ("tcp", "udp", "tcp-parallel", "tcp-omit"):
        client = judge_client(0, run(version, case).stdout, "").figures
        server = last_served(run(version, f"server-{case}").stdout).figures
        assert client and server and client.received and client.sent
        assert client.received == pytest.approx(server.received, rel=0.01)
        assert client.protocol == case.partition("-")[0]


def test_the_agents_own_figures_count_before_those_of_the_document() -> None:
    own = Figures(received=5.0, lost_percent=50.0)
    text = document(("3.22", "3.12"), "forward", "client")
    result = b'{"agent":%b,%b' % (msgspec.json.encode({"figures": own}), text[1:])
    assert figures_in(msgspec.Raw(result)) == own
    assert figures_in(msgspec.Raw(text)) == figures(("3.22", "3.12"), "forward", "client")
    assert figures_in(msgspec.Raw(b"null")).flows == [Figures()]


@pytest.mark.parametrize(
    ("flows", "words"),
    [
        ((Flow(), None), ""),
        ((Flow(sent=5e6, received=0.0), None), "0 bit/s"),
        ((Flow(sent=5e6, received=4e6), Flow(received=3e6)), "4.00 Mbit/s, back 3.00 Mbit/s"),
        ((Flow(), Flow(received=3e6)), "back 3.00 Mbit/s"),
        ((Flow(sent=5e6), Flow(received=3e6)), "5.00 Mbit/s sent, back 3.00 Mbit/s"),
    ],
)
def test_the_headline_in_words(flows: tuple[Flow, Flow | None], words: str) -> None:
    main, back = flows
    told = Figures(**msgspec.structs.asdict(main), backward=back)
    assert told.of_each_way(Flow.headline) == words


@pytest.mark.parametrize(
    ("sent", "received", "words"),
    [(0, 0, ("arguments", "no byte was sent")), (1e6, 0, ("unreachable", "1000000 bytes"))],
)
def test_a_test_that_carried_nothing_is_no_success(
    sent: float, received: float, words: tuple[str, str]
) -> None:
    text = document(("3.22", "3.22"), "calm", "client")
    edited = msgspec.json.decode(text)
    edited["end"]["sum_sent"]["bytes"] = sent
    edited["end"]["sum_received"] |= {"bytes": received, "packets": 0, "lost_packets": 0}
    judged = judge_client(0, msgspec.json.encode(edited), "")
    assert (judged.ok, judged.error_class) == (False, words[0])
    assert words[1] in judged.message
    assert judged.figures and judged.figures.lost_percent == (100 if sent else None)
    assert judged.figures.jitter_ms is None, "nobody measured it"


def test_datagrams_beyond_the_mtu_that_must_not_be_fragmented_are_no_success() -> None:
    judged = judge_client(0, document(("3.22", "3.22"), "oversized", "client"), "")
    assert (judged.ok, judged.error_class) == (False, "arguments")
    assert "length must fit into the network's MTU" in judged.message


def test_a_receiver_may_read_nothing_of_a_test_of_milliseconds() -> None:
    """The end of the test may overtake what was sent: nobody knows what arrived then."""
    edited = msgspec.json.decode(run("3.12", "tcp-bytes").stdout)
    edited["end"]["sum_received"] |= {"bytes": 0, "bits_per_second": 0}
    judged = judge_client(0, msgspec.json.encode(edited), "")
    assert judged.ok and judged.figures and judged.figures.sent
    assert (judged.figures.received, judged.figures.received_bytes) == (None, None)
    assert judged.figures.headline().endswith(" sent")


@pytest.mark.parametrize(
    ("blocks", "retransmits", "ok"),
    [(0, 0, True), (1, 0, True), (2, 0, True), (20, 0, False), (0, 4, False), (0.6, 4, False)],
)
def test_a_slow_receiver_may_have_no_whole_block_of_a_healthy_test(
    blocks: float, retransmits: int, ok: bool
) -> None:
    """What is sent again and again does not arrive: the path drops full packets."""
    edited = msgspec.json.decode(run("3.12", "tcp").stdout)
    asked, end = edited["start"]["test_start"], edited["end"]
    end["sum_sent"]["bytes"] = blocks * asked["blksize"] * asked["num_streams"]
    end["sum_sent"]["retransmits"] = retransmits
    end["sum_received"]["bytes"] = 0
    assert judge_client(0, msgspec.json.encode(edited), "").ok is ok


def test_one_dead_direction_of_two_is_a_warning() -> None:
    edited = msgspec.json.decode(document(("3.22", "3.22"), "bidir", "client"))
    edited["end"]["sum_received_bidir_reverse"] |= {"bytes": 0, "packets": 0}
    judged = judge_client(0, msgspec.json.encode(edited), "")
    assert judged.ok and judged.summary
    words = " ".join(doubts(judged.summary, Features("iperf3", "3.22", {})))
    assert "and the receiver reports none" in words


def test_strange_numbers_raise_nothing() -> None:
    odd = Sums(bytes=1e308, packets=-5, lost_packets=1e308, seconds=5e-324, lost_percent=5)
    for size in (5e-324, 1e308, -1.0, 0.0):
        asked = Request(protocol="UDP", blksize=size)
        for end in (End(sum=odd), End(sum=odd, sum_sent=odd, sum_received=odd)):
            found = figures_of(Summary(start=Start(test_start=asked), end=end))
            assert found.lost_percent is None or 0 <= found.lost_percent <= 100
    assert read_summary(b"{}") == Summary() and read_intervals(b"{}") == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", ["client-of-server-term", "server-of-client-term"])
def test_the_rate_of_a_test_that_the_other_side_ended_is_that_of_its_whole_intervals(
    version: str, case: str
) -> None:
    """iperf3 divides all bytes by their seconds, and writes the last one twice."""
    found = last_served(run(version, case).stdout).figures
    assert found and len(found.rates) == 1
    own, other = (
        (found.sent, found.received) if "server-t" in case else (found.received, found.sent)
    )
    assert own == pytest.approx(found.rates[0], rel=1e-3) and own == pytest.approx(5e7, rel=0.05)
    assert other is None, "the other side has not reported"
    assert found.received_bytes is None or found.sent_bytes is None


def test_what_3_9_has_counted_until_the_other_side_ended_is_counted_once() -> None:
    """Its document has no error where the server ended: the twin of an interval tells it."""
    served = last_served((CUT / "3.9-uf-cli2.6.server").read_bytes()).figures
    assert served and (served.received_bytes, served.packets) == (1218560 + 1249280, 241)
    assert served.received == pytest.approx(9.87e6, rel=0.01)
    found = last_served((CUT / "3.9-ub-srv2.6.client").read_bytes()).figures
    assert found and found.backward and found.sent == pytest.approx(1e7, rel=0.01)
    assert (found.backward.sent, found.backward.sent_bytes) == (None, None)
    assert found.backward.received == pytest.approx(1.02e7, rel=0.01)


def test_what_arrived_of_a_large_document_that_was_cut_short_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its intervals are not read, and 3.9 says nothing else of it."""
    text = run("3.9", "client-of-server-term").stdout
    small = last_served(text).figures
    monkeypatch.setattr(verdict, "_LARGE_DOCUMENT", 100)
    large = last_served(text).figures
    assert small and large and large.sent and not large.rates
    assert (large.received, large.received_bytes, large.sent_bytes) == (
        None,
        None,
        small.sent_bytes,
    )


@pytest.mark.parametrize(("name", "sent"), [("3.22-uf", True), ("3.9-tr", False)])
def test_the_time_until_a_frozen_server_was_given_up_is_none_of_the_tests(
    name: str, sent: bool
) -> None:
    """It stood still in the second of 2 s, and its client was ended 3 s later."""
    found = last_served((CUT / f"{name}-frozen.client").read_bytes()).figures
    assert found
    assert found.sent == pytest.approx(2508800 * 4 if sent else None)
    assert found.received == (None if sent else 1576960 * 4)


@pytest.mark.parametrize("name", ["3.9-tf-srv0.5.client", "3.12-tr-srv0.5.client"])
def test_a_test_that_the_server_ended_in_its_first_second_has_no_rate(name: str) -> None:
    """iperf3 takes the seconds since the host has started for those of the test."""
    text = (CUT / name).read_bytes()
    said, found = read_summary(text), last_served(text).figures
    assert said and (said.seconds or 0) > 5000
    assert found and (found.sent, found.received) == (None, None)
    assert {found.sent_bytes, found.received_bytes} in ({None, 512000}, {None, 624640})
