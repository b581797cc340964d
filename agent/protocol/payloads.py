"""The payloads of tasks: what is accepted, and in which words the rest is refused."""

import ipaddress
import re
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect

from agent.error_classes import ErrorClass
from agent.errors import TaskError

Port = Annotated[int, Meta(ge=1, le=65535)]
# Only what a host name, an address or an IPv6 zone can consist of, and never a leading dash.
Host = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_:][A-Za-z0-9_.:%-]*\Z",
        max_length=253,
        description="a host name or an IP address",
    ),
]
# The kernel's IFNAMSIZ is 16 with the closing NUL.
Device = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}\Z",
        description="the name of a network interface",
    ),
]
# The kernel's TCP_CA_NAME_MAX is 16 with the closing NUL.
Algorithm = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,14}\Z",
        description="the name of a congestion control, like cubic",
    ),
]
DscpName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z][A-Za-z0-9-]{0,9}\Z",
        description="the name of a DSCP class, like af11",
    ),
]
Core = Annotated[int, Meta(ge=0, le=999)]
CorePair = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,3}(,[0-9]{1,3})?\Z",
        description='cores of the client and the server, like "0,1"',
    ),
]
IpVersion = Literal[4, 6]
Seconds = Annotated[float, Meta(gt=0, description="a number of seconds above 0")]
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


class ServerPayload(Struct, frozen=True):
    """The parameters of an `iperf_server_start` task. `max_seconds` is in seconds.

    `udp` is the Manager's remark about the tests to come: an iperf3 server takes no `-u`.
    """

    port: Port
    udp: bool = False
    bind: Host | None = None
    bind_dev: Device | None = None
    ip_version: IpVersion | None = None
    one_off: bool = False
    affinity: Core | None = None
    max_seconds: Seconds | None = None


class ClientPayload(Struct, frozen=True):
    """The parameters of an `iperf_client_run` task.

    Times are in seconds unless the name says ms, sizes in bytes, rates in bits per second and
    per stream, as iperf3 counts them. The bounds are iperf3's widest (3.12 to 3.22); a version
    with a closer one says so itself.
    """

    server_ip: Host
    port: Port
    udp: bool = False
    parallel: Annotated[int, Meta(ge=1, le=128)] = 1
    time: Annotated[int, Meta(ge=1, le=86400)] = 10
    client_delay_seconds: Annotated[float, Meta(ge=0, le=3600)] = 0
    max_retries: Annotated[int, Meta(ge=0, le=100)] = 3
    retry_delay_seconds: Annotated[float, Meta(ge=0, le=3600)] = 2
    reverse: bool = False
    bidir: bool = False
    bitrate: Annotated[int, Meta(ge=0, le=10**13)] | None = None
    burst: Annotated[int, Meta(ge=1, le=1000)] | None = None
    fq_rate: Annotated[int, Meta(ge=1, le=10**13)] | None = None
    length: Annotated[int, Meta(ge=16, le=1024**2)] | None = None
    window: Annotated[int, Meta(ge=1, le=512 * 1024**2)] | None = None
    mss: Annotated[int, Meta(ge=88, le=32767)] | None = None
    congestion: Algorithm | None = None
    omit: Annotated[int, Meta(ge=0, le=600)] = 0
    interval: Annotated[float, Meta(ge=0.1, le=60)] | None = None
    bytes: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    tos: Annotated[int, Meta(ge=0, le=255)] | None = None
    dscp: Annotated[int, Meta(ge=0, le=63)] | DscpName | None = None
    flow_label: Annotated[int, Meta(ge=1, le=0xFFFFF)] | None = None
    no_delay: bool = False
    zerocopy: bool = False
    ip_version: IpVersion | None = None
    bind: Host | None = None
    bind_dev: Device | None = None
    cport: Port | None = None
    affinity: Core | CorePair | None = None
    connect_timeout_ms: Annotated[int, Meta(ge=1, le=60_000)] = 5000
    dont_fragment: bool = False
    udp_counters_64bit: bool = False


# msgspec lets the last two through for bad UTF-8 and for a thousand levels of nesting.
_UNFIT = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_KEY = re.compile(r" - at `\$\.(\w+)`\Z")
_SHOWN = 60
_Payload = TypeVar("_Payload", ServerPayload, ClientPayload)


def server_payload(raw: msgspec.Raw) -> ServerPayload:
    """Decode the payload of an `iperf_server_start` task; raises TaskError(`bad_payload`)."""
    payload = _decode_payload(raw, ServerPayload)
    _check_bind(payload.bind)
    return payload


def client_payload(raw: msgspec.Raw) -> ClientPayload:
    """Decode the payload of an `iperf_client_run` task; raises TaskError(`bad_payload`)."""
    payload = _decode_payload(raw, ClientPayload)
    _check_bind(payload.bind)
    _check_host(payload.server_ip)
    if payload.reverse and payload.bidir:
        raise TaskError(ErrorClass.BAD_PAYLOAD, "payload: give reverse or bidir, not both")
    if payload.tos is not None and payload.dscp is not None:
        raise TaskError(ErrorClass.BAD_PAYLOAD, "payload: give tos or dscp, not both")
    return payload


def unknown_keys(raw: msgspec.Raw, known: type[ServerPayload] | type[ClientPayload]) -> list[str]:
    """The keys of a payload that no option of ours answers to, sorted."""
    try:
        keys = set(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]))
    except _UNFIT:  # no object: decoding it as a payload says so
        return []
    return sorted(keys.difference(known.__struct_fields__))


def _decode_payload(raw: msgspec.Raw, kind: type[_Payload]) -> _Payload:
    try:
        return msgspec.json.decode(raw, type=kind)
    except _UNFIT as error:
        raise TaskError(ErrorClass.BAD_PAYLOAD, f"payload: {_fault(error, raw, kind)}") from error


def _fault(error: Exception, raw: msgspec.Raw, kind: type[_Payload]) -> str:
    """What is wrong with a payload: the key, what it may be, and what it is."""
    place = _KEY.search(str(error))
    if place is None:
        return str(error)
    key = place[1]
    shape = inspect.type_info(kind)
    assert isinstance(shape, inspect.StructType)
    accepted = next(_in_words(field.type) for field in shape.fields if field.name == key)
    try:
        values = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except _UNFIT:  # it is broken elsewhere as well
        return f"{key} must be {accepted}"
    given = bytes(values[key]).decode(errors="replace")
    shown = given if len(given) <= _SHOWN else f"{given[:_SHOWN]}..."
    return f"{key} must be {accepted}, not {shown}"


def _in_words(kind: inspect.Type) -> str:
    """What a type of ours accepts."""
    match kind:
        case inspect.UnionType(types):
            known = (_in_words(each) for each in types if not isinstance(each, inspect.NoneType))
            return " or ".join(known)
        case inspect.LiteralType(values):
            return " or ".join(map(str, values))
        case inspect.Metadata(extra_json_schema={"description": words}):
            return str(words)
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}"
        case inspect.FloatType(ge=least, le=most):
            return f"a number from {least} to {most}"
        case inspect.BoolType():
            return "true or false"
    raise AssertionError(f"no words for {kind}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_host(host: str) -> None:
    """Let addresses and names pass; iperf3 would read `name%device` as --bind-dev."""
    if not _is_address(host) and not _NAME.fullmatch(host):
        words = "a host name, of labels of 1 to 63 characters, or an IP address"
        raise TaskError(ErrorClass.BAD_PAYLOAD, f"payload: server_ip must be {words}, not {host!r}")


def _check_bind(bind: str | None) -> None:
    """Let only addresses pass: iperf3 would look a name up, and `-B` also takes `host%dev`."""
    if bind is not None and not _is_address(bind):
        raise TaskError(
            ErrorClass.BAD_PAYLOAD, f"payload: bind must be an IP address, got {bind!r}"
        )
