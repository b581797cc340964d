"""From a payload to the command line of iperf3.

No value of a payload can become an option: each string follows an option that takes a value, and
`agent.protocol` accepts none that begins with a dash.
"""

from typing import Any

import msgspec

from agent.errors import ErrorClass, TaskError
from agent.iperf3.features import THREADED, Features
from agent.protocol import ClientPayload, Figures, ServerPayload
from agent.protocol.payloads import SECRET

# Seconds, as iperf3's own default; always given, so that a document shows which one was used. As a
# newer one ends a test of some bytes only with an interval, those are the shortest that it takes,
# or so many in the time that the test may take: each is written for each stream.
_INTERVAL, _SHORTEST, _MOST = 1.0, 0.1, 100
# From 3.17 on, a client can report each interval as it ends: see agent.iperf3.stream.
JSON_STREAM = "--json-stream"

# Keys that are no option of iperf3.
_OWN_KEYS = frozenset(
    "client_delay_seconds max_retries retry_delay_seconds max_seconds burst ip_version"
    " password".split()
)
# Every other key is named as its option is, but for these.
_OTHER_NAMES = {"server_ip": "--client", "mss": "--set-mss", "flow_label": "--flowlabel"}
# Those whose value is the text of a file; in the words `[key]` stands for its path.
_FILES = SECRET - {"password"}


def server_argv(features: Features, payload: ServerPayload) -> list[str]:
    """The command line of a server.

    It has no `-u`, which iperf3 refuses (the client decides whether a test is UDP), and no time
    limit (the agent ends the server itself). Raises TaskError(`unsupported`) when this iperf3
    lacks an option that the payload asks for.
    """
    return _argv(features, payload, {"udp": False, "json": True})


def client_argv(features: Features, payload: ClientPayload, target: str) -> list[str]:
    """The command line of a client that tests against `target`, a host name or an address.

    Its output is a stream if this iperf3 can write one, else a document. Raises
    TaskError(`unsupported`) when this iperf3 lacks what the payload asks for,
    TaskError(`bad_payload`) when a burst has no bitrate. Other contradictions are left to iperf3
    to refuse.
    """
    if payload.bytes and payload.reverse and (3,) <= features.release < (3, 10):
        words = f"iperf3 {features.version} never ends a test with bytes and reverse: give a time"
        raise TaskError(ErrorClass.UNSUPPORTED, words)
    changed = {
        "server_ip": target,
        "bitrate": _bitrate(payload),
        # iperf3 takes only one end condition.
        "time": None if payload.bytes else payload.time,
        "json_stream" if JSON_STREAM in features.options else "json": True,
        "interval": f"{_interval(features, payload):g}",
        "omit": payload.omit or None,
    }
    return _argv(features, payload, changed)


def secrets_of(payload: ServerPayload | ClientPayload) -> dict[str, str]:
    """What goes with a command line and is not in it.

    That is the text of each file by the word that stands for its path, and iperf3's variable.
    """
    given = {key: value for key, value in msgspec.structs.asdict(payload).items() if value}
    found = {f"[{key}]": given[key] for key in _FILES & given.keys()}
    return found | ({"IPERF3_PASSWORD": given["password"]} if "password" in given else {})


def with_argv(figures: Figures, argv: list[str]) -> Figures:
    """The figures with what the command line says and not each document.

    At UDP, one of iperf3 3.9 has no bitrate; one of 3.16 does not say how often that looked.
    """
    values = dict(zip(argv, argv[1:]))
    asked = int(values.get("-b", "0").split("/")[0]) * int(values.get("-P", "1"))
    late = figures.overtime and min(figures.seconds, float(values.get("-i", figures.overtime)))
    return msgspec.structs.replace(
        figures, asked=figures.asked or float(asked) or None, overtime=late
    )


def _interval(features: Features, payload: ClientPayload) -> float:
    """The seconds between two reports."""
    if not payload.bytes or features.release < THREADED:
        return payload.interval or _INTERVAL
    usual = min(_INTERVAL, max(_SHORTEST, payload.time / _MOST))
    # Such a test ends with an interval, and must not need more than `time`.
    return min(payload.interval or usual, payload.time / 2)


def _bitrate(payload: ClientPayload) -> str | int | None:
    """The bitrate of each stream in bit/s; 0 instead of iperf3's default for UDP of 1 Mbit/s."""
    if payload.burst is not None:
        if not payload.bitrate:
            raise TaskError(ErrorClass.BAD_PAYLOAD, "payload: burst needs a bitrate above 0")
        return f"{payload.bitrate}/{payload.burst}"
    return 0 if payload.udp and payload.bitrate is None else payload.bitrate


def _argv(
    features: Features, payload: ServerPayload | ClientPayload, changed: dict[str, Any]
) -> list[str]:
    """The words for a payload with some values changed or added.

    None and False leave an option out; True gives it without a value.
    """
    is_server = isinstance(payload, ServerPayload)
    values = {"server": is_server, **msgspec.structs.asdict(payload)}
    if payload.ip_version:
        values[f"version{payload.ip_version}"] = True
    values |= changed
    words = [features.path]
    for key, value in values.items():
        if key in _OWN_KEYS or value is None or value is False:
            continue
        usual = f"{key}_path" if key in _FILES else key.removesuffix("_ms")
        name = _OTHER_NAMES.get(key) or f"--{usual.replace('_', '-')}"
        word = features.options.get(name)
        if word is None:
            lack = f"iperf3 {features.version} at {features.path} has no {name}"
            advice = f"(payload key {key}): install an iperf3 that has it, or leave the key out"
            raise TaskError(ErrorClass.UNSUPPORTED, f"{lack} {advice}")
        if value is True:
            words.append(word)
        elif key == "cntl_ka":
            # Its value is optional, so it is no word of its own.
            words.append(f"{word}={value}")
        else:
            words += [word, f"[{key}]" if key in _FILES else str(value)]
    return words
