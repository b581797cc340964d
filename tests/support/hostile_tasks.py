"""Tasks as a hostile Manager would write them, as JSON text: not all of it could be encoded."""

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from agent.protocol import ClientPayload, ServerPayload

CLIENT, SERVER = "iperf_client_run", "iperf_server_start"
CLIENT_KEYS = ClientPayload.__struct_fields__
SERVER_KEYS = ServerPayload.__struct_fields__

_FRAGMENTS = [
    "-",
    "--",
    "-h",
    "--version",
    "--logfile",
    "--logfile=touched",
    "-Fenv-file",
    "-Itouched",
    "-D",
    "-1",
    "-c 127.0.0.1",
    "; touch touched",
    "$(touch touched)",
    "`touch touched`",
    "|| touch touched",
    "127.0.0.1\0-h",
    "127.0.0.1\n-h",
    "127.0.0.1 -h",
    "127.0.0.1\t",
    "127.0.0.1%-h",
    "fe80::1%-h",
    "fe80::1%lo",
    "lo%-h",
    "${PATH}",
    "%n%s%x",
    "../../etc/passwd",
    "/etc/passwd",
    "\r\nX-AGENT-KEY: other",
    "\N{FULLWIDTH DIGIT ONE}27.0.0.1",
    "\N{RIGHT-TO-LEFT OVERRIDE}",
    "\N{ZERO WIDTH NO-BREAK SPACE}",
    "0,-1",
    "0,0,0",
    "",
    " ",
    "0",
    "ef",
    "reno",
    "lo",
]
_ALPHABET = "-/;$`|&<>'\"\\\n\r\t\0\x1b %.:,@=abc019é\N{SNOWMAN}\U0001f600"


def _text(value: str) -> str:
    return json.dumps(value)


_STRINGS: SearchStrategy[str] = st.one_of(
    st.sampled_from(_FRAGMENTS),
    st.text(_ALPHABET, max_size=12),
    st.text(max_size=8),
    st.text(_ALPHABET, max_size=6).map(lambda text: f"-{text}"),
    st.builds(lambda text, times: text * times, st.sampled_from("a-:\0é"), st.integers(64, 8_000)),
)
_NUMBERS: SearchStrategy[str] = st.one_of(
    st.integers().map(str),
    st.integers(-2, 2**17).map(str),
    st.sampled_from(
        [
            "-0",
            "0.5",
            "1e999",
            "-1e999",
            "1e-999",
            str(2**31),
            str(2**53 + 1),
            str(2**63),
            str(2**64),
            "9" * 400,
            "9" * 5000,
            "0." + "3" * 400,
        ]
    ),
)
# Half of Python's recursion limit and nearly all of it: more makes the whole answer unreadable.
_NESTED = st.builds(
    lambda pair, depth: pair[0] * depth + "0" * (pair[0] != "[") + pair[1] * depth,
    st.sampled_from([("[", "]"), ('{"a":', "}")]),
    st.sampled_from([1, 2, 50, 500, 900, 960]),
)
VALUES: SearchStrategy[str] = st.one_of(
    _STRINGS.map(_text),
    _NUMBERS,
    st.sampled_from(["true", "false", "null", "[]", "{}", '[[],{},"-h"]', '"\udcff\udcfe"']),
    _NESTED,
    st.lists(_STRINGS.map(_text), max_size=3).map(lambda texts: f"[{','.join(texts)}]"),
)
# Keys in which a value that fits is likely, and what fits.
_FITTING: dict[str, list[Any]] = {
    "server_ip": ["127.0.0.1", "::1", "localhost", "fe80::1%lo"],
    "port": [1, 5201, 65535],
    "udp": [True],
    "parallel": [1, 128],
    "time": [1, 86400],
    "bitrate": [0, 10**13],
    "congestion": ["reno", "no-such"],
    "bind": ["127.0.0.1"],
    "bind_dev": ["lo", "a.b@c:d-e"],
    "dscp": ["ef", 63],
    "affinity": [0, "0,0"],
    "ip_version": [4, 6],
}


# What fits only as a whole, and what iperf3 gets without having it in its command line.
_RSA_KEY = r"-----BEGIN %s-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END %s-----"
_PUBLIC, _PRIVATE = (_RSA_KEY % (kind, kind) for kind in ("PUBLIC KEY", "PRIVATE KEY"))
_OF_CLIENT = f'"username": "a.b", "password": "--help", "rsa_public_key": "{_PUBLIC}"'
_OF_SERVER = f'"rsa_private_key": "{_PRIVATE}", "authorized_users": "a.b,{"0" * 64}"'


def _pair(key: str, value: str) -> str:
    return f"{_text(key)}: {value}"


def _fitting(keys: tuple[str, ...]) -> SearchStrategy[str]:
    known = [key for key in keys if key in _FITTING]
    return st.sampled_from(known).flatmap(
        lambda key: st.sampled_from(_FITTING[key]).map(lambda value: _pair(key, json.dumps(value)))
    )


def _hostile(keys: tuple[str, ...]) -> SearchStrategy[str]:
    return st.builds(_pair, st.sampled_from(keys), VALUES)


_STRANGE_PAIRS = st.builds(_pair, _STRINGS, VALUES)


def _payload(base: list[str], keys: tuple[str, ...], login: str) -> SearchStrategy[str]:
    """An object with what the task needs, and more: keys may be there twice."""
    more = st.one_of(_hostile(keys), _fitting(keys), _STRANGE_PAIRS, st.just(login))
    some = st.one_of(
        st.lists(more, max_size=3),
        *[st.lists(_hostile(keys), min_size=1, max_size=4)] * 3,
    )
    return some.map(lambda pairs: f"{{{','.join([*base, *pairs])}}}")


@dataclass(frozen=True)
class Task:
    """The texts of a task's type and payload."""

    type: str
    payload: str


def _tasks() -> SearchStrategy[Task]:
    client = _payload(['"server_ip": "127.0.0.1"', '"port": 5201'], CLIENT_KEYS, _OF_CLIENT)
    server = _payload(['"port": 5201'], SERVER_KEYS, _OF_SERVER)
    known = st.sampled_from([CLIENT, SERVER])
    return st.one_of(
        st.builds(Task, st.just(_text(CLIENT)), client),
        st.builds(Task, st.just(_text(CLIENT)), client),
        st.builds(Task, st.just(_text(SERVER)), server),
        st.builds(Task, known.map(_text), VALUES),
        st.builds(Task, _STRINGS.map(_text), st.one_of(client, VALUES)),
    )


TASKS: SearchStrategy[Task] = _tasks()
