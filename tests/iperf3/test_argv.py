"""Payloads become command lines that iperf3 takes, and never smuggle in an option."""

import re
import shutil
import socket
import subprocess
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import TaskError
from agent.iperf3.argv import client_argv, secrets_of, server_argv
from agent.iperf3.features import Features, parse_features
from agent.iperf3.verdict import judge_client, judge_server_exit
from agent.protocol import ClientPayload, ServerPayload, read_payload
from tests.support.recorded_runs import VERSIONS, features

NEWEST = features("3.22")
# The options as iperf3's own help has them: those that stand alone, and those with a value.
ALONE = set("-s -u -J -R --bidir -N -Z -4 -6 -1 -m --dont-fragment --udp-counters-64bit".split())
ALONE |= {"--json-stream", "--gsro", "--skip-rx-copy", "--use-pkcs1-padding"}
VALUED = set("-c -p -b -P -t -n -i -O -l -w -M -C -S -L -B -A --fq-rate --dscp --cport".split())
VALUED |= {"--connect-timeout", "--bind-dev", "--idle-timeout", "--rcv-timeout", "--snd-timeout"}
VALUED |= {"--username", "--rsa-public-key-path", "--rsa-private-key-path", "--time-skew-threshold"}
VALUED |= {"--authorized-users-path"}
# An option whose value is part of its word.
PROBES = re.compile(r"--cntl-ka(=[0-9]+(/[0-9]+){0,2})?")
STRING_KEYS = "server_ip bind bind_dev congestion dscp affinity cntl_ka username password".split()
EVERYTHING: dict[str, Any] = {
    "reverse": True,
    "bitrate": 5_000_000,
    "burst": 10,
    "fq_rate": 10_000_000,
    "length": 1400,
    "window": 65536,
    "mss": 1400,
    "congestion": "cubic",
    "omit": 1,
    "interval": 0.25,
    "dscp": "af11",
    "no_delay": True,
    "zerocopy": True,
    "ip_version": 4,
    "bind": "127.0.0.1",
    "bind_dev": "lo",
    "cport": 45678,
    "affinity": "0,0",
    "connect_timeout_ms": 700,
    "dont_fragment": True,
    "udp_counters_64bit": True,
    "rcv_timeout_ms": 100,
    "snd_timeout_ms": 1,
}
# What only newer ones have.
NEWER: dict[str, Any] = {"cntl_ka": "20/5/3", "mptcp": True, "gsro": True, "skip_rx_copy": True}


def client(target: str = "10.0.0.1", version: str = "3.12", **keys: Any) -> list[str]:
    """The words of a client's command line, without the path."""
    keys = {"server_ip": target, "port": 5200, **keys}
    payload = read_payload(msgspec.Raw(msgspec.json.encode(keys)), ClientPayload)
    return client_argv(features(version), payload, payload.server_ip)[1:]


def server(version: str = "3.12", **keys: Any) -> list[str]:
    """The words of a server's command line, without the path."""
    payload = read_payload(msgspec.Raw(msgspec.json.encode({"port": 5200, **keys})), ServerPayload)
    return server_argv(features(version), payload)[1:]


def assert_safe(words: list[str]) -> None:
    """Check that each word is an option of the agent or the value of one."""
    rest = iter(words)
    for word in rest:
        if word in VALUED:
            value = next(rest)
            assert value and not value.startswith("-"), (word, value)
        else:
            assert word in ALONE or PROBES.fullmatch(word), word


def test_a_plain_client_has_the_usual_command_line() -> None:
    expected = "-c 10.0.0.1 -p 5200 -P 16 -t 30 -i 1 --connect-timeout 5000 -J"
    assert client(parallel=16, time=30) == expected.split()


def test_a_udp_client_without_a_bitrate_is_unlimited() -> None:
    words = client(udp=True, parallel=16, time=30)
    assert words[:11] == "-c 10.0.0.1 -p 5200 -u -b 0 -P 16 -t 30".split()


@pytest.mark.parametrize("version", VERSIONS)
def test_only_a_client_streams_its_intervals_and_only_with_a_newer_iperf3(version: str) -> None:
    found = features(version)
    words = client_argv(found, ClientPayload(server_ip="h", port=1), "h")
    streams = found.release >= (3, 17)
    assert ("--json-stream" in words, "-J" in words) == (streams, not streams)
    assert server_argv(found, ServerPayload(port=1))[1:] == "-s -p 1 -J".split()


def test_a_server_never_gets_the_option_for_udp() -> None:
    assert server(udp=True) == "-s -p 5200 -J".split()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"bitrate": 1000, "burst": 5}, "-b 1000/5"),
        ({"bitrate": 0}, "-b 0"),
        ({"udp": True, "bitrate": 9}, "-u -b 9"),
        ({"bidir": True}, "--bidir"),
        ({"fq_rate": 7}, "--fq-rate 7"),
        ({"length": 1400}, "-l 1400"),
        ({"window": 4096}, "-w 4096"),
        ({"mss": 1400}, "-M 1400"),
        ({"congestion": "bbr"}, "-C bbr"),
        ({"omit": 3}, "-O 3"),
        ({"interval": 0.5}, "-i 0.5"),
        ({"tos": 0}, "-S 0"),
        ({"dscp": 46}, "--dscp 46"),
        ({"dscp": "EF"}, "--dscp EF"),
        ({"flow_label": 5}, "-L 5"),
        ({"no_delay": True}, "-N"),
        ({"zerocopy": True}, "-Z"),
        ({"ip_version": 4}, "-4"),
        ({"ip_version": 6}, "-6"),
        ({"bind": "::1"}, "-B ::1"),
        ({"bind_dev": "eth0.5"}, "--bind-dev eth0.5"),
        ({"cport": 1024}, "--cport 1024"),
        ({"affinity": 0}, "-A 0"),
        ({"affinity": "0,1"}, "-A 0,1"),
        ({"connect_timeout_ms": 9}, "--connect-timeout 9"),
        ({"dont_fragment": True}, "--dont-fragment"),
        ({"udp_counters_64bit": True}, "--udp-counters-64bit"),
        ({"reverse": True}, "-R"),
        ({"rcv_timeout_ms": 100}, "--rcv-timeout 100"),
        ({"snd_timeout_ms": 1}, "--snd-timeout 1"),
        ({"cntl_ka": True}, "--cntl-ka"),
        ({"cntl_ka": "20/5/3"}, "--cntl-ka=20/5/3"),
        ({"mptcp": True}, "-m"),
        ({"gsro": True}, "--gsro"),
        ({"skip_rx_copy": True}, "--skip-rx-copy"),
    ],
)
def test_each_key_of_a_client_becomes_its_option(keys: dict[str, Any], expected: str) -> None:
    version = "3.22" if keys.keys() & NEWER.keys() else "3.12"
    assert f" {expected} " in f" {' '.join(client(version=version, **keys))} "


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"bind": "127.0.0.1"}, "-B 127.0.0.1"),
        ({"bind_dev": "lo"}, "--bind-dev lo"),
        ({"ip_version": 4}, "-4"),
        ({"ip_version": 6}, "-6"),
        ({"one_off": True}, "-1"),
        ({"affinity": 0}, "-A 0"),
        ({"idle_timeout": 3}, "--idle-timeout 3"),
        ({"rcv_timeout_ms": 86_400_000}, "--rcv-timeout 86400000"),
        ({"snd_timeout_ms": 7}, "--snd-timeout 7"),
        ({"cntl_ka": True}, "--cntl-ka"),
        ({"cntl_ka": "20"}, "--cntl-ka=20"),
        ({"mptcp": True}, "-m"),
        ({"time_skew_threshold": 60}, "--time-skew-threshold 60"),
    ],
)
def test_each_key_of_a_server_becomes_its_option(keys: dict[str, Any], expected: str) -> None:
    version = "3.22" if keys.keys() & NEWER.keys() else "3.12"
    assert server(version=version, **keys) == f"-s -p 5200 {expected} -J".split()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_login_is_in_no_command_line_but_for_the_name_of_the_user(version: str) -> None:
    asked = ClientPayload("h", 1, username="alice", password="hush", rsa_public_key="PUBLIC")
    words = " ".join(client_argv(features(version), asked, "h"))
    assert "--username alice --rsa-public-key-path [rsa_public_key]" in words
    assert "hush" not in words and "PUBLIC" not in words
    assert secrets_of(asked) == {"IPERF3_PASSWORD": "hush", "[rsa_public_key]": "PUBLIC"}
    keys = {"[rsa_private_key]": "PRIVATE", "[authorized_users]": "alice,0"}
    asking = ServerPayload(port=1, rsa_private_key="PRIVATE", authorized_users="alice,0")
    words = " ".join(server_argv(features(version), asking))
    paths = "--rsa-private-key-path [rsa_private_key] --authorized-users-path [authorized_users]"
    assert paths in words
    assert secrets_of(asking) == keys
    assert secrets_of(ServerPayload(port=1)) == secrets_of(ClientPayload("h", 1)) == {}


@pytest.mark.parametrize("words", [client, server])
def test_only_an_iperf3_with_oaep_padding_can_be_told_to_use_the_older_one(words: Any) -> None:
    assert "--use-pkcs1-padding" in words(version="3.18", use_pkcs1_padding=True)
    with pytest.raises(TaskError, match=r"\(payload key use_pkcs1_padding\)") as raised:
        words(version="3.12", use_pkcs1_padding=True)
    assert raised.value.error_class == "unsupported"


def test_the_agent_and_not_iperf3_ends_a_server_after_its_time() -> None:
    assert server(max_seconds=5) == server()


@pytest.mark.parametrize(
    ("version", "keys", "interval"),
    [
        ("3.12", {}, "1"),
        ("3.22", {}, "0.1"),
        ("3.22", {"time": 60}, "0.6"),
        ("3.22", {"time": 600}, "1"),
        ("3.22", {"interval": 5}, "5"),
        # It would end after its deadline.
        ("3.22", {"interval": 30}, "5"),
        ("3.12", {"interval": 30}, "30"),
    ],
)
def test_a_newer_iperf3_looks_often_whether_the_bytes_are_out(
    version: str, keys: dict[str, Any], interval: str
) -> None:
    words = client(version=version, bytes=1, **{"time": 10, **keys})
    assert words[words.index("-i") + 1] == interval
    assert client(version=version, time=10)[client(version=version, time=10).index("-i") + 1] == "1"


def test_bytes_replace_the_time() -> None:
    words = client(bytes=2**40, time=30)
    assert "-t" not in words
    assert words[words.index("-n") + 1] == str(2**40)


@pytest.mark.parametrize("keys", [{"burst": 5}, {"burst": 5, "bitrate": 0}])
def test_a_burst_without_a_bitrate_is_a_bad_payload(keys: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match="burst needs a bitrate") as raised:
        client(**keys)
    assert raised.value.error_class == "bad_payload"


def test_the_message_about_a_missing_option_names_the_key_and_a_remedy() -> None:
    words = (
        r"^iperf3 3\.9 at /usr/bin/iperf3 has no --bind-dev \(payload key bind_dev\):"
        " install an iperf3 that has it, or leave the key out$"
    )
    old = features("3.9")
    with pytest.raises(TaskError, match=words) as raised:
        client_argv(old, ClientPayload(server_ip="h", port=1, bind_dev="lo"), "h")
    assert raised.value.error_class == "unsupported"
    with pytest.raises(TaskError, match=words):
        server_argv(old, ServerPayload(port=1, bind_dev="lo"))


@pytest.mark.parametrize(
    ("version", "key", "value"),
    [
        *[("3.9", key, 100) for key in ("idle_timeout", "rcv_timeout_ms", "snd_timeout_ms")],
        *[("3.18", key, value) for key, value in NEWER.items()],
    ],
)
def test_a_key_that_is_too_new_for_the_iperf3_is_unsupported(
    version: str, key: str, value: Any
) -> None:
    for words, kind in ((client, ClientPayload), (server, ServerPayload)):
        if key in kind.__struct_fields__:
            with pytest.raises(TaskError, match=rf"\(payload key {key}\)") as raised:
                words(version=version, **{key: value})
            assert raised.value.error_class == "unsupported"


addresses = st.ip_addresses().map(str)
devices = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}", fullmatch=True)
zones = st.from_regex(r"[A-Za-z0-9_.:-]{1,15}", fullmatch=True)
hosts = st.one_of(
    addresses,
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,20}(\.[A-Za-z0-9_-]{1,20}){0,3}", fullmatch=True),
    st.builds("{}%{}".format, st.ip_addresses(v=6), zones),
)
shared_keys = {
    "bind": st.none() | addresses,
    "bind_dev": st.none() | devices,
    "ip_version": st.sampled_from([None, 4, 6]),
    "rcv_timeout_ms": st.none() | st.integers(100, 86_400_000),
    "snd_timeout_ms": st.none() | st.integers(1, 86_400_000),
    "cntl_ka": st.booleans() | st.from_regex(r"[0-9]{1,5}(/[0-9]{1,5}){0,2}", fullmatch=True),
    "mptcp": st.booleans(),
}
server_keys = st.fixed_dictionaries(
    {"port": st.integers(1, 65535)},
    optional={
        **shared_keys,
        "udp": st.booleans(),
        "one_off": st.booleans(),
        "affinity": st.integers(0, 63),
        "max_seconds": st.floats(0.1, 1e6),
        "idle_timeout": st.integers(1, 86400),
    },
)
client_keys = st.fixed_dictionaries(
    {"server_ip": hosts, "port": st.integers(1, 65535)},
    optional={
        **shared_keys,
        **dict.fromkeys(
            ("udp", "reverse", "no_delay", "zerocopy", "dont_fragment", "udp_counters_64bit"),
            st.booleans(),
        ),
        **dict.fromkeys(("gsro", "skip_rx_copy"), st.booleans()),
        "parallel": st.integers(1, 128),
        "time": st.integers(1, 86400),
        "bitrate": st.none() | st.integers(0, 10**13),
        "fq_rate": st.integers(1, 10**13),
        "length": st.integers(16, 65000),
        "window": st.integers(1, 2**29),
        "mss": st.integers(88, 9216),
        "congestion": st.from_regex(r"[a-z0-9][a-z0-9_-]{0,14}", fullmatch=True),
        "omit": st.integers(0, 60),
        "interval": st.floats(0.1, 60),
        "bytes": st.none() | st.integers(1, 2**53),
        "dscp": st.integers(0, 63) | st.sampled_from(["af11", "CS7", "ef", "lowdelay"]),
        "flow_label": st.integers(1, 0xFFFFF),
        "cport": st.integers(1, 65535),
        "affinity": st.integers(0, 63) | st.from_regex(r"[0-9]{1,2},[0-9]{1,2}", fullmatch=True),
        "connect_timeout_ms": st.integers(1, 60_000),
        "use_pkcs1_padding": st.booleans(),
    },
)


@settings(deadline=None)
@given(client_keys)
def test_no_value_of_an_accepted_client_payload_is_read_as_an_option(keys: dict[str, Any]) -> None:
    payload = read_payload(msgspec.Raw(msgspec.json.encode(keys)), ClientPayload)
    argv = client_argv(NEWEST, payload, payload.server_ip)
    assert argv[0] == NEWEST.path
    assert_safe(argv[1:])


@settings(deadline=None)
@given(server_keys)
def test_no_value_of_an_accepted_server_payload_is_read_as_an_option(keys: dict[str, Any]) -> None:
    assert_safe(server("3.22", **keys))


hostile = st.one_of(
    st.text(max_size=30),
    st.builds(
        "{}{}".format, st.sampled_from(["-", "--", "-c", "1.2.3.4%", "::1%", "0,", "1/"]), st.text()
    ),
    st.sampled_from(["--logfile=/x", "-F/x", "1.1.1.1%eth0", "fe80::1%-I", "h\n", "0,-1", "0\0"]),
)


@settings(deadline=None)
@given(st.sampled_from(STRING_KEYS), hostile)
def test_any_string_in_a_client_payload_is_refused_or_harmless(key: str, text: str) -> None:
    keys: dict[str, Any] = {"server_ip": "10.0.0.1", key: text}
    try:
        words = client(keys.pop("server_ip"), "3.22", **keys)
    except TaskError as error:
        assert error.error_class == "bad_payload"
    else:
        assert_safe(words)
        # iperf3 splits a target or a local address at %, and -A at a comma.
        assert "%" not in text or ":" in text.split("%")[0]
        assert key != "affinity" or all(core.isascii() for core in text.split(","))


@settings(deadline=None)
@given(st.sampled_from(["bind", "bind_dev", "affinity", "cntl_ka"]), hostile)
def test_any_string_in_a_server_payload_is_refused_or_harmless(key: str, text: str) -> None:
    try:
        words = server("3.22", **{key: text})
    except TaskError as error:
        assert error.error_class == "bad_payload"
    else:
        assert_safe(words)


def installed() -> Features:
    """The iperf3 of this machine, as the agent sees it."""
    path = shutil.which("iperf3")
    assert path, "these tests need iperf3"
    said = [
        subprocess.run([path, option], capture_output=True, text=True, timeout=10).stdout
        for option in ("--version", "--help")
    ]
    return parse_features(path, *said)


@pytest.mark.process
@pytest.mark.parametrize(
    "keys",
    [
        EVERYTHING,
        {**EVERYTHING, "udp": True, "reverse": False, "bidir": True, "dscp": 0, "affinity": 0},
        {"bytes": 10_000, "tos": 255, "omit": 0, "ip_version": 4},
        {"ip_version": 6, "server_ip": "::1", "flow_label": 0xFFFFF, "bind": "::1"},
        {"ip_version": 6, "server_ip": "::1%lo"},
    ],
)
def test_the_installed_iperf3_takes_every_option_of_a_client(keys: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    keys = {"server_ip": "127.0.0.1", "port": port, **keys}
    payload = read_payload(msgspec.Raw(msgspec.json.encode(keys)), ClientPayload)
    argv = client_argv(installed(), payload, payload.server_ip)
    done = subprocess.run(argv, capture_output=True, timeout=20)
    judged = judge_client(done.returncode, done.stdout, done.stderr.decode())
    assert (judged.ok, judged.error_class) == (False, "refused"), judged.message


@pytest.mark.process
@pytest.mark.parametrize(
    "keys",
    [
        {"ip_version": 4, "bind": "127.0.0.1", "bind_dev": "lo", "affinity": 0, "one_off": True},
        {"udp": True, "max_seconds": 5},
    ],
)
def test_the_installed_iperf3_takes_every_option_of_a_server(keys: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        keys = {"port": taken.getsockname()[1], **keys}
        payload = read_payload(msgspec.Raw(msgspec.json.encode(keys)), ServerPayload)
        argv = server_argv(installed(), payload)
        done = subprocess.run(argv, capture_output=True, timeout=20)
    judged = judge_server_exit(done.returncode, done.stdout, done.stderr.decode())
    assert judged.error_class == "port_in_use", judged.message


def test_what_never_ends_with_iperf3_3_9_is_unsupported() -> None:
    with pytest.raises(
        TaskError, match="iperf3 3.9 never ends a test with bytes and reverse"
    ) as it:
        client(version="3.9", bytes=1000, reverse=True)
    assert it.value.error_class == "unsupported"
    assert "-n" in client(version="3.9", bytes=1000, bidir=True)
    assert {"-n", "-R"} <= set(client(version="3.12", bytes=1000, reverse=True))
