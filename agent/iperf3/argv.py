"""From a payload to iperf3's command line.

Nothing that a Manager wrote can become an option: every string of a payload stands directly
behind an option that takes a value, and `agent.protocol` lets none begin with a dash.
"""

from typing import NamedTuple

from agent.error_classes import ErrorClass
from agent.errors import TaskError
from agent.iperf3.features import Features
from agent.protocol import ClientPayload, ServerPayload

# iperf3's own default, said so that a document always shows which one was used.
_INTERVAL = 1.0
# From 3.17 a client can say each interval when it is over; see agent.iperf3.stream.
JSON_STREAM = "--json-stream"


class _Option(NamedTuple):
    """One option: the payload's key, the name in `--help`, the form used, and its value.

    None and False leave the option out, True gives it without a value.
    """

    key: str
    name: str
    flag: str
    value: str | int | None


def server_argv(features: Features, payload: ServerPayload) -> list[str]:
    """The command line of a server.

    It has no `-u` (every iperf3 refuses that: the client says whether a test is UDP) and no
    time limit (the agent ends the server itself). Raises TaskError(`unsupported`) when this
    iperf3 lacks an option that the payload asks for.
    """
    return _argv(
        features,
        [
            _Option("server", "--server", "-s", True),
            _Option("port", "--port", "-p", payload.port),
            _Option("json", "--json", "-J", True),
            _Option("ip_version", "--version4", "-4", payload.ip_version == 4),
            _Option("ip_version", "--version6", "-6", payload.ip_version == 6),
            _Option("bind", "--bind", "-B", payload.bind),
            _Option("bind_dev", "--bind-dev", "--bind-dev", payload.bind_dev),
            _Option("one_off", "--one-off", "-1", payload.one_off),
            _Option("affinity", "--affinity", "-A", payload.affinity),
        ],
    )


def client_argv(features: Features, payload: ClientPayload, target: str) -> list[str]:
    """The command line of a client that tests against `target`, a host name or an address.

    Its output is a stream where this iperf3 can write one, else a document.
    Raises TaskError(`unsupported`) when this iperf3 lacks an option that the payload asks for,
    TaskError(`bad_payload`) when a burst has no bitrate. What else contradicts itself is
    iperf3's to refuse, in its own words.
    """
    options = [
        _Option("server_ip", "--client", "-c", target),
        _Option("port", "--port", "-p", payload.port),
        _Option("udp", "--udp", "-u", payload.udp),
        _Option("bitrate", "--bitrate", "-b", _bitrate(payload)),
        _Option("parallel", "--parallel", "-P", payload.parallel),
        # iperf3 takes one end condition only.
        _Option("time", "--time", "-t", None if payload.bytes else payload.time),
        _Option("bytes", "--bytes", "-n", payload.bytes),
        _json(features),
        _Option("interval", "--interval", "-i", f"{payload.interval or _INTERVAL:g}"),
        _Option(
            "connect_timeout_ms",
            "--connect-timeout",
            "--connect-timeout",
            payload.connect_timeout_ms,
        ),
        _Option("reverse", "--reverse", "-R", payload.reverse),
        _Option("bidir", "--bidir", "--bidir", payload.bidir),
        _Option("omit", "--omit", "-O", payload.omit or None),
    ]
    return _argv(features, options + _socket_options(payload))


def _json(features: Features) -> _Option:
    if JSON_STREAM in features.options:
        return _Option("json", JSON_STREAM, JSON_STREAM, True)
    return _Option("json", "--json", "-J", True)


def _socket_options(payload: ClientPayload) -> list[_Option]:
    """What shapes the sockets and packets, as opposed to the test."""
    return [
        _Option("fq_rate", "--fq-rate", "--fq-rate", payload.fq_rate),
        _Option("length", "--length", "-l", payload.length),
        _Option("window", "--window", "-w", payload.window),
        _Option("mss", "--set-mss", "-M", payload.mss),
        _Option("congestion", "--congestion", "-C", payload.congestion),
        _Option("no_delay", "--no-delay", "-N", payload.no_delay),
        _Option("zerocopy", "--zerocopy", "-Z", payload.zerocopy),
        _Option("tos", "--tos", "-S", payload.tos),
        _Option("dscp", "--dscp", "--dscp", payload.dscp),
        _Option("flow_label", "--flowlabel", "-L", payload.flow_label),
        _Option("ip_version", "--version4", "-4", payload.ip_version == 4),
        _Option("ip_version", "--version6", "-6", payload.ip_version == 6),
        _Option("bind", "--bind", "-B", payload.bind),
        _Option("bind_dev", "--bind-dev", "--bind-dev", payload.bind_dev),
        _Option("cport", "--cport", "--cport", payload.cport),
        _Option("affinity", "--affinity", "-A", payload.affinity),
        _Option("dont_fragment", "--dont-fragment", "--dont-fragment", payload.dont_fragment),
        _Option(
            "udp_counters_64bit",
            "--udp-counters-64bit",
            "--udp-counters-64bit",
            payload.udp_counters_64bit,
        ),
    ]


def _bitrate(payload: ClientPayload) -> str | int | None:
    """The target bitrate of each stream, in bit/s; iperf3's own default for UDP is 1 Mbit/s."""
    if payload.burst is not None:
        if not payload.bitrate:
            raise TaskError(ErrorClass.BAD_PAYLOAD, "payload: burst needs a bitrate above 0")
        return f"{payload.bitrate}/{payload.burst}"
    return 0 if payload.udp and payload.bitrate is None else payload.bitrate


def _argv(features: Features, options: list[_Option]) -> list[str]:
    words = [features.path]
    for option in options:
        if option.value is None or option.value is False:
            continue
        if option.name not in features.options:
            raise TaskError(ErrorClass.UNSUPPORTED, _lacks(features, option))
        words.append(option.flag)
        if option.value is not True:
            words.append(str(option.value))
    return words


def _lacks(features: Features, option: _Option) -> str:
    return (
        f"iperf3 {features.version} at {features.path} has no {option.name} (payload key"
        f" {option.key}): install a newer iperf3 or leave the key out"
    )
