"""Payloads are accepted, or refused in plain words."""

import json
import time
from collections.abc import Callable
from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import TaskError
from agent.protocol import (
    ClientPayload,
    ServerPayload,
    read_payload,
    unknown_keys,
)
from agent.protocol.payloads import KillAllPayload

Payload = ClientPayload | ServerPayload | KillAllPayload
Decode = Callable[[msgspec.Raw], Payload]
LABEL = "a" * 63
# The beginnings of keys that openssl has made.
PUBLIC = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----\n"
PRIVATE = (
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"
)
EC_PUBLIC = PUBLIC.replace("MIIBIjANBgkqhkiG9w0BAQEF", "MFkwEwYHKoZIzj0CAQYIKoZI")
EC_PRIVATE = PRIVATE.replace("MIIEvQIBADANBgkqhkiG9w0BAQEF", "MIGHAgEAMBMGByqGSM49AgEG")
OF_CLIENT = {"username": "alice", "password": "s3cret!,", "rsa_public_key": PUBLIC}
LINE = f"alice,{'0123456789abcdef' * 4}"
OF_SERVER = {"rsa_private_key": PRIVATE, "authorized_users": LINE}


def raw(payload: Any) -> msgspec.Raw:
    """A payload as a claimed task has it."""
    return msgspec.Raw(json.dumps(payload).encode())


def client_payload(text: msgspec.Raw) -> ClientPayload:
    """That of a client's task."""
    return read_payload(text, ClientPayload)


def server_payload(text: msgspec.Raw) -> ServerPayload:
    """That of a server's task."""
    return read_payload(text, ServerPayload)


def kill_all_payload(text: msgspec.Raw) -> KillAllPayload:
    """That of a `kill_all`."""
    return read_payload(text, KillAllPayload)


def client(**keys: Any) -> ClientPayload:
    """A client payload with these keys and the two that are required."""
    return client_payload(raw({"server_ip": "10.0.0.1", "port": 5200, **keys}))


def refusal(decode: Decode, text: bytes) -> str:
    """The message about a bad payload."""
    with pytest.raises(TaskError) as raised:
        decode(msgspec.Raw(text))
    assert raised.value.error_class == "bad_payload"
    return str(raised.value)


def test_a_payload_is_decoded_once_however_many_keys_nobody_knows() -> None:
    def seconds(keys: int) -> float:
        wide = raw({"server_ip": "h", "port": 1, **{f"k{number}": 0 for number in range(keys)}})
        began = time.thread_time()
        read_payload(wide, ClientPayload)
        return time.thread_time() - began

    seconds(100)
    # With a decoding for each key it is 64 times as much.
    assert seconds(8000) < 32 * seconds(1000)


def test_the_payloads_of_todays_manager_are_accepted() -> None:
    server = server_payload(raw({"port": 5200, "udp": False}))
    assert (server.port, server.udp, server.one_off) == (5200, False, False)
    asked = {"udp": False, "parallel": 16, "time": 30, "client_delay_seconds": 2}
    taken = client(**asked)
    assert {key: getattr(taken, key) for key in asked} == asked


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "fd00::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "manager",
        "a.b-c.example",
        "example.com.",
        "_srv.example",
        "3com.example",
        f"{LABEL}.{LABEL}.example",
    ],
)
def test_a_possible_host_is_accepted(host: str) -> None:
    assert client(server_ip=host).server_ip == host


@pytest.mark.parametrize(
    "host",
    [
        "",
        "-c",
        "--logfile=x",
        "a b",
        "a\n",
        "a\0",
        "a/b",
        "ä.example",
        "a..b",
        ".a",
        "a..",
        ".",
        f"{LABEL}a.example",
        "10.0.0.1%eth0",
        "host%eth0",
        "host:80",
        "[::1]",
        ":::",
        ".".join(["label"] * 60),
    ],
)
def test_an_impossible_host_is_refused(host: str) -> None:
    message = refusal(client_payload, bytes(raw({"server_ip": host, "port": 1})))
    assert message.startswith("payload: server_ip must be a host name or an IP address, not ")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"port": 0}, "port must be a whole number from 1 to 65535, not 0"),
        ({"port": "5200"}, 'port must be a whole number from 1 to 65535, not "5200"'),
        ({"port": 1.5}, "port must be a whole number from 1 to 65535, not 1.5"),
        ({"port": None}, "port must be a whole number from 1 to 65535, not null"),
        ({"port": True}, "port must be a whole number from 1 to 65535, not true"),
        ({"time": 86401}, "time must be a whole number from 1 to 86400, not 86401"),
        ({"udp": "yes"}, 'udp must be true or false, not "yes"'),
        ({"ip_version": 5}, "ip_version must be 4 or 6, not 5"),
        ({"ip_version": "6"}, 'ip_version must be 4 or 6, not "6"'),
        ({"interval": 0.01}, "interval must be a number from 0.1 to 60, not 0.01"),
        (
            {"congestion": "no such"},
            'congestion must be a congestion control such as cubic, not "no such"',
        ),
        (
            {"dscp": 64},
            "dscp must be a whole number from 0 to 63" " or a DSCP class such as af11, not 64",
        ),
        (
            {"affinity": "0,-1"},
            "affinity must be a core number from 0 to 999"
            ' or two of them, for the client and the server, such as "0,1", not "0,-1"',
        ),
        (
            {"rcv_timeout_ms": 99},
            "rcv_timeout_ms must be a whole number from 100 to 86400000, not 99",
        ),
        (
            {"cntl_ka": "20,5"},
            "cntl_ka must be true or false or IDLE/INTERVAL/COUNT in seconds and probes,"
            ' such as 20/5/3, not "20,5"',
        ),
        ({"bind_dev": "-x"}, 'bind_dev must be a network interface, not "-x"'),
        ({"bind": "eth0"}, 'bind must be an IP address, not "eth0"'),
        ({"bind": "127.0.0.1%lo"}, 'bind must be an IP address, not "127.0.0.1%lo"'),
        ({"bind": "-x"}, 'bind must be an IP address, not "-x"'),
        ({"reverse": True, "bidir": True}, "give reverse or bidir, not both"),
        ({"tos": 1, "dscp": 1}, "give tos or dscp, not both"),
    ],
)
def test_the_message_about_a_wrong_value_has_the_key_and_what_is_accepted(
    keys: dict[str, Any], message: str
) -> None:
    given_keys = {"server_ip": "10.0.0.1", "port": 1, **keys}
    assert refusal(client_payload, bytes(raw(given_keys))) == f"payload: {message}"


def test_the_message_about_the_payload_of_a_server_is_alike() -> None:
    given_keys = {"port": 1, "max_seconds": 0}
    message = "payload: max_seconds must be a number of seconds above 0, not 0"
    assert refusal(server_payload, bytes(raw(given_keys))) == message


def test_a_kill_all_names_tasks_or_means_all_of_them() -> None:
    assert kill_all_payload(raw({"task_ids": [3, -1, 2**70]})).task_ids == [3, -1, 2**70]
    assert kill_all_payload(raw({"task_ids": []})).task_ids == []
    assert kill_all_payload(raw({"task_id": [4]})).task_ids is msgspec.UNSET


@pytest.mark.parametrize(
    "text",
    [
        b'{"task_ids": null}',
        b'{"task_ids": 3}',
        b'{"task_ids": "3"}',
        b'{"task_ids": {"3": 3}}',
        b'{"task_ids": [3, null]}',
        b'{"task_ids": ["3"]}',
        b'{"task_ids": [true]}',
        b'{"task_ids": [3.5]}',
        b'{"task_ids": [[3]]}',
        b'{"task_ids": [1%s]}' % (b"0" * 5000),
        b'{"task_ids": [3], "task_ids": "3"}',
    ],
)
def test_a_scope_that_is_no_list_of_numbers_is_refused(text: bytes) -> None:
    words = "payload: task_ids must be a list of task numbers, not "
    assert refusal(kill_all_payload, text).startswith(words)


@pytest.mark.parametrize("text", [b"null", b"[3]", b"3", b'"all"'])
def test_a_kill_all_whose_payload_is_no_object_is_refused(text: bytes) -> None:
    assert "it must be a JSON object" in refusal(kill_all_payload, text)


def test_only_the_beginning_of_a_long_value_is_shown() -> None:
    message = refusal(client_payload, bytes(raw({"server_ip": "x" * 5000, "port": 1})))
    assert len(message) < 150
    assert message.endswith("xxx...")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{}", "server_ip is missing"),
        (b'{"server_ip": "a"}', "port is missing"),
        (b"[]", "it must be a JSON object, not array"),
        (b"null", "it must be a JSON object, not null"),
        (b'"text"', "it must be a JSON object, not str"),
        (b'{"server_ip": "\xff", "port": 1}', "utf-8"),
        (b'{"x": %s1%s}' % (b"[" * 5000, b"]" * 5000), "depth"),
        (b'{"server_ip": "a", "port": 99999999999999999999}', "port must be"),
        (b'{"server_ip": "a", "port": 1, "retry_delay_seconds": 1e999}', "retry_delay_seconds"),
        (b'{"server_ip": [1], "port": Infinity}', "server_ip must be a host name"),
        (b'{"server_ip": [1], "\xff": 1}', "server_ip must be a host name"),
    ],
)
def test_other_json_and_broken_json_are_refused(text: bytes, words: str) -> None:
    assert words in refusal(client_payload, text)


@pytest.mark.parametrize("suffix", ["", "\n", "\r\n"])
def test_the_keys_of_a_login_are_accepted(suffix: str) -> None:
    login = {**OF_CLIENT, "rsa_public_key": PUBLIC.replace("\n", suffix or "\n")}
    assert client(**login, use_pkcs1_padding=True).password == "s3cret!,"
    for key in (PRIVATE, PRIVATE.replace("PRIVATE", "RSA PRIVATE"), f"\n{PRIVATE}\n"):
        login = {"rsa_private_key": key, "authorized_users": f"{LINE}\nbob,{'0' * 64}{suffix}"}
        taken = server_payload(raw({"port": 1, **login, "time_skew_threshold": 60}))
        assert taken.authorized_users == login["authorized_users"]


@pytest.mark.parametrize("whole", [OF_CLIENT, OF_SERVER], ids=["client", "server"])
def test_a_login_is_there_as_a_whole_or_not_at_all(whole: dict[str, str]) -> None:
    decode: Decode = client_payload if whole is OF_CLIENT else server_payload
    for some in range(1, len(whole)):
        for keys in combinations(whole, some):
            payload = {"server_ip": "a", "port": 1, **{key: whole[key] for key in keys}}
            message = refusal(decode, bytes(raw(payload)))
            assert message == f"payload: a login needs {' and '.join(whole)}"


@pytest.mark.parametrize(
    ("key", "values", "accepted"),
    [
        ("username", ["", "-h", "a b", "a,b", "#a", "a\n", "\xe4", "a" * 65, 5], "a user name, of"),
        (
            "password",
            [
                "",
                "x" * 121,
                "hush hush",
                "hush\n",
                "hush\0",
                "h\xfcsh",
                4711,
                ["hush"],
                {"a": "hush"},
            ],
            "1 to 120 characters of ASCII without blanks",
        ),
        (
            "rsa_public_key",
            [
                "hush",
                PRIVATE,
                PUBLIC[:-9],
                PUBLIC + "hush",
                EC_PUBLIC,
                PUBLIC + "\0",
                4711,
                [PRIVATE],
            ],
            "an RSA public key in PEM",
        ),
    ],
)
def test_what_can_be_no_part_of_a_clients_login_is_refused(
    key: str, values: list[Any], accepted: str
) -> None:
    for value in values:
        message = refusal(
            client_payload, bytes(raw({"server_ip": "a", "port": 1, **OF_CLIENT, key: value}))
        )
        assert message.startswith(f"payload: {key} must be {accepted}")
        assert key == "username" or not any(word in message for word in ("hush", "4711", "MII"))


@pytest.mark.parametrize(
    ("key", "values", "accepted"),
    [
        (
            "rsa_private_key",
            ["hush", PUBLIC, EC_PRIVATE, PRIVATE.replace("PRIV", "ENCRYPTED PRIV"), 4711],
            "an RSA private key in PEM, without a passphrase",
        ),
        (
            "authorized_users",
            [
                "",
                "alice,hush",
                LINE.upper(),
                f"{LINE},",
                f" {LINE}",
                f"#{LINE}",
                f"{LINE}\n\n",
                4711,
            ]
            + [f",{LINE}", LINE.replace(",", ", "), f"{LINE}\n{PRIVATE}", [LINE]],
            "lines of USER,SHA256 with the hash in lower case",
        ),
    ],
)
def test_what_can_be_no_part_of_a_servers_login_is_refused(
    key: str, values: list[Any], accepted: str
) -> None:
    for value in values:
        message = refusal(server_payload, bytes(raw({"port": 1, **OF_SERVER, key: value})))
        assert message == f"payload: {key} must be {accepted}"


def test_a_payload_that_is_wrong_elsewhere_shows_no_secret() -> None:
    whole = {"server_ip": "a", "port": 1, **OF_CLIENT, **OF_SERVER}
    for wrong in ({"port": "x"}, {"udp": 5}, {"tos": 1, "dscp": 1}, {"server_ip": None}):
        assert_hidden(refusal(client_payload, bytes(raw({**whole, **wrong}))))
    good = raw(whole)
    for text in (bytes(good)[:-1], bytes(raw(bytes(good).decode())), bytes(raw([whole]))):
        assert_hidden(refusal(client_payload, text))
    twice = b'{"password": "s3cret!,", "password": 5, ' + bytes(good)[1:]
    assert_hidden(refusal(client_payload, twice))


def assert_hidden(message: str) -> None:
    """A message has no part of a login."""
    assert "s3cret" not in message and "MII" not in message and "0123" not in message


def test_every_key_has_words_for_what_it_accepts() -> None:
    kinds: list[tuple[Decode, type[Payload]]] = [
        (client_payload, ClientPayload),
        (server_payload, ServerPayload),
        (kill_all_payload, KillAllPayload),
    ]
    for decode, kind in kinds:
        for key in kind.__struct_fields__:
            usual = {"server_ip": "a", "port": 1, key: [["no key takes this"]]}
            assert refusal(decode, bytes(raw(usual))).startswith(f"payload: {key} must be ")


def test_only_unknown_keys_are_listed_in_order() -> None:
    payload = raw({"port": 1, "zeta": 1, "alpha": {"deep": [1]}, "server_ip": "a"})
    assert unknown_keys(payload, ClientPayload) == ["alpha", "zeta"]
    assert unknown_keys(payload, ServerPayload) == ["alpha", "server_ip", "zeta"]
    assert unknown_keys(msgspec.Raw(b"[]"), ClientPayload) == []


def test_unknown_keys_do_no_harm() -> None:
    assert client(shiny={"deep": [1]}).port == 5200


@pytest.mark.parametrize(
    "more",
    [
        {"sctp": True},
        {"protocol": "sctp"},
        {"UDP": True},
        {"protocol": "udp"},
        {"protocol": "tcp", "udp": True},
        {"serverIp": "b"},
        {"server-port": 5},
        {"host": "b"},
        {"target": {"ip": "b"}},
    ],
)
def test_a_key_that_asks_for_another_protocol_or_target_is_unsupported(more: Any) -> None:
    with pytest.raises(TaskError, match="this agent does not know") as raised:
        client(**more)
    assert raised.value.error_class == "unsupported"


@pytest.mark.parametrize(
    "more",
    [
        {"sctp": False},
        {"host": None},
        {"protocol": "TCP"},
        {"protocol": "udp", "udp": True},
        {"bitrat": 5},
    ],
)
def test_a_key_that_asks_for_no_other_test_does_no_harm(more: Any) -> None:
    assert client(**more).port == 5200


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
known_keys = st.sampled_from(ClientPayload.__struct_fields__ + ServerPayload.__struct_fields__)
decoders = st.sampled_from([client_payload, server_payload, kill_all_payload])
payloads = st.dictionaries(known_keys | st.just("task_ids") | st.text(), json_values, max_size=6)


@settings(deadline=None, max_examples=200)
@given(payloads | json_values, decoders)
def test_any_json_is_accepted_or_a_bad_payload(value: Any, decode: Decode) -> None:
    check(decode, bytes(raw(value)))


@settings(deadline=None)
@given(
    st.fixed_dictionaries({"server_ip": st.just("a"), "port": st.just(1)}), known_keys, json_values
)
def test_any_value_is_accepted_or_refused_with_its_key(
    usual: dict[str, Any], key: str, value: Any
) -> None:
    message = check(client_payload, bytes(raw({**usual, key: value})))
    assert message is None or key in message


@settings(deadline=None)
@given(st.binary(max_size=60), decoders)
def test_any_bytes_are_accepted_or_a_bad_payload(text: bytes, decode: Decode) -> None:
    check(decode, text)


def check(decode: Decode, text: bytes) -> str | None:
    """Decode it, and return the message of the only error that may be raised."""
    try:
        decode(msgspec.Raw(text))
    except TaskError as error:
        assert error.error_class in ("bad_payload", "unsupported")
        return str(error)
    return None
