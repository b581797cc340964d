"""From a payload to the command line of iperf3.

No value of a payload can become an option: each string follows an option that takes a value, and
`agent.protocol` accepts none that begins with a dash.
"""

from typing import NamedTuple

from agent.error_classes import ErrorClass
from agent.errors import TaskError
from agent.iperf3.features import Features
from agent.protocol import ClientPayload, ServerPayload

# As iperf3's own default; always given, so that a document shows which one was used.
_INTERVAL = 1.0
# From 3.17 on, a client can report each interval as it ends: see agent.iperf3.stream.
JSON_STREAM = "--json-stream"


class _Option(NamedTuple):
    """One option: the payload's key, the value, the name in `--help`, and a short form.

    A value of None or False leaves the option out; True gives it without a value.
    """

    key: str
    value: str | int | None
    name: str
    short: str = ""


def server_argv(features: Features, payload: ServerPayload) -> list[str]:
    """The command line of a server.

    It has no `-u`, which iperf3 refuses (the client decides whether a test is UDP), and no time
    limit (the agent ends the server itself). Raises TaskError(`unsupported`) when this iperf3
    lacks an option that the payload asks for.
    """
    options = [
        _Option("server", True, "--server", "-s"),
        _Option("port", payload.port, "--port", "-p"),
        _Option("json", True, "--json", "-J"),
        _Option("one_off", payload.one_off, "--one-off", "-1"),
        _Option("idle_timeout", payload.idle_timeout, "--idle-timeout"),
    ]
    return _argv(features, options + _either(payload))


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
    streams = JSON_STREAM in features.options
    options = [
        _Option("server_ip", target, "--client", "-c"),
        _Option("port", payload.port, "--port", "-p"),
        _Option("udp", payload.udp, "--udp", "-u"),
        _Option("bitrate", _bitrate(payload), "--bitrate", "-b"),
        _Option("parallel", payload.parallel, "--parallel", "-P"),
        # iperf3 takes only one end condition.
        _Option("time", None if payload.bytes else payload.time, "--time", "-t"),
        _Option("bytes", payload.bytes, "--bytes", "-n"),
        _Option("json", True, JSON_STREAM) if streams else _Option("json", True, "--json", "-J"),
        _Option("interval", f"{payload.interval or _INTERVAL:g}", "--interval", "-i"),
        _Option("connect_timeout_ms", payload.connect_timeout_ms, "--connect-timeout"),
        _Option("reverse", payload.reverse, "--reverse", "-R"),
        _Option("bidir", payload.bidir, "--bidir"),
        _Option("omit", payload.omit or None, "--omit", "-O"),
    ]
    return _argv(features, options + _packets(payload) + _either(payload))


def _packets(payload: ClientPayload) -> list[_Option]:
    """How a client sends, and what its packets look like."""
    return [
        _Option("fq_rate", payload.fq_rate, "--fq-rate"),
        _Option("length", payload.length, "--length", "-l"),
        _Option("window", payload.window, "--window", "-w"),
        _Option("mss", payload.mss, "--set-mss", "-M"),
        _Option("congestion", payload.congestion, "--congestion", "-C"),
        _Option("no_delay", payload.no_delay, "--no-delay", "-N"),
        _Option("zerocopy", payload.zerocopy, "--zerocopy", "-Z"),
        _Option("tos", payload.tos, "--tos", "-S"),
        _Option("dscp", payload.dscp, "--dscp"),
        _Option("flow_label", payload.flow_label, "--flowlabel", "-L"),
        _Option("cport", payload.cport, "--cport"),
        _Option("dont_fragment", payload.dont_fragment, "--dont-fragment"),
        _Option("udp_counters_64bit", payload.udp_counters_64bit, "--udp-counters-64bit"),
        _Option("gsro", payload.gsro, "--gsro"),
        _Option("skip_rx_copy", payload.skip_rx_copy, "--skip-rx-copy"),
    ]


def _either(payload: ServerPayload | ClientPayload) -> list[_Option]:
    """What a server takes as well: where iperf3 runs on this host, and how it notices the dead."""
    # The value of --cntl-ka is optional, so it is no word of its own.
    probes = "" if payload.cntl_ka is True else f"--cntl-ka={payload.cntl_ka}"
    return [
        _Option("ip_version", payload.ip_version == 4, "--version4", "-4"),
        _Option("ip_version", payload.ip_version == 6, "--version6", "-6"),
        _Option("bind", payload.bind, "--bind", "-B"),
        _Option("bind_dev", payload.bind_dev, "--bind-dev"),
        _Option("affinity", payload.affinity, "--affinity", "-A"),
        _Option("rcv_timeout_ms", payload.rcv_timeout_ms, "--rcv-timeout"),
        _Option("snd_timeout_ms", payload.snd_timeout_ms, "--snd-timeout"),
        _Option("cntl_ka", bool(payload.cntl_ka), "--cntl-ka", probes),
        _Option("mptcp", payload.mptcp, "--mptcp", "-m"),
    ]


def _bitrate(payload: ClientPayload) -> str | int | None:
    """The bitrate of each stream in bit/s; 0 instead of iperf3's default for UDP of 1 Mbit/s."""
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
            lack = f"iperf3 {features.version} at {features.path} has no {option.name}"
            advice = f"(payload key {option.key}): install a newer iperf3 or leave the key out"
            raise TaskError(ErrorClass.UNSUPPORTED, f"{lack} {advice}")
        words.append(option.short or option.name)
        if option.value is not True:
            words.append(str(option.value))
    return words
