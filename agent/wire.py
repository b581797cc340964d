"""What the Manager and the agent say to each other, as types (see docs/protocol.md).

Everything that comes from the Manager is checked here and nowhere else. A task's payload stays
raw until it is decoded by `server_payload` or `client_payload`: a task whose payload does not
fit is still a task, and fails with a message.
"""

import ipaddress
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from agent.errors import TaskError

Port = Annotated[int, Meta(ge=1, le=65535)]
# Only what a host name, an address or an IPv6 zone can consist of, and never a leading dash.
Host = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_:][A-Za-z0-9_.:%-]*\Z", max_length=253)]
# The kernel's IFNAMSIZ is 16 with the closing NUL.
Device = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}\Z")]
# The kernel's TCP_CA_NAME_MAX is 16 with the closing NUL.
Algorithm = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,14}\Z")]
DscpName = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,9}\Z")]
Core = Annotated[int, Meta(ge=0, le=999)]
CorePair = Annotated[str, Meta(pattern=r"^[0-9]{1,3}(,[0-9]{1,3})?\Z")]
IpVersion = Literal[4, 6]


class Task(Struct, frozen=True):
    """One task as it was claimed. `payload` is the undecoded JSON of its parameters."""

    id: int
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")


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
    max_seconds: Annotated[float, Meta(gt=0)] | None = None


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


class AgentRecord(Struct):
    """The answer to `register`, without the key that it also carries."""

    id: int
    name: str = ""
    first_registered: str | None = None


class HeartbeatAnswer(Struct):
    """The answer to `heartbeat`; `cancel` lists tasks whose children are to be stopped."""

    pull_tasks: bool = True
    cancel: list[int] = []


class ClaimAnswer(Struct):
    """The answer to `claim`."""

    task: Task | None = None


class Acknowledged(Struct):
    """The answer to `started` and `result`: the task, of which only the id is read."""

    id: int


class Health(Struct):
    """The answer to `/healthz`."""

    ok: bool


class RefusalDetails(Struct, frozen=True):
    """What a refusal says about the task."""

    current_status: str | None = None


class RefusalDetail(Struct, frozen=True):
    """The inner part of the Manager's 400 and 401 answers."""

    error: str = ""
    details: RefusalDetails | None = None


class Refusal(Struct):
    """The Manager's refusals: 404 says `error` at the top, 400 and 401 inside `detail`."""

    error: str = ""
    detail: RefusalDetail = RefusalDetail()


class RunningRow(Struct, omit_defaults=True):
    """One row of the heartbeat's `running` list; `started_at` is UTC in ISO 8601."""

    type: Literal["server", "client"]
    port: int
    pid: int
    task_id: int
    started_at: str


class Report(Struct, omit_defaults=True):
    """The `agent` key of a result: how it was measured, and what a reader should know."""

    version: str = ""
    iperf3_version: str = ""
    argv: list[str] = []
    attempts: int = 0
    started_at: str = ""
    finished_at: str = ""
    interface: str = ""
    mtu: int = 0
    speed_mbps: int = 0
    kernel: str = ""
    congestion: str = ""
    warnings: list[str] = []
    error_class: str = ""
    ended: str = ""
    truncated: str = ""


class Document(Struct, frozen=True):
    """One JSON object inside a file that iperf3 wrote: the bytes from `start` up to `end`."""

    path: str
    start: int
    end: int


class Outcome(Struct, frozen=True):
    """What is reported of a task: at most one of `document` and `answer` beside the report.

    `stderr` is what an operator reads at the Manager; `answer` holds the agent's own keys of
    the result (`started`, `killed`, ...).
    """

    status: Literal["succeeded", "failed"]
    report: Report
    exit_code: int = 0
    stderr: str = ""
    answer: dict[str, bool | int] = {}
    document: Document | None = None


# msgspec lets the last two through for bad UTF-8 and for a thousand levels of nesting.
_UNFIT = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
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
    # iperf3 would read `name%device` as --bind-dev; a zone belongs to an IPv6 address alone.
    if "%" in payload.server_ip and not _is_address(payload.server_ip):
        raise TaskError("bad_payload", "payload: server_ip has a % that is no IPv6 zone")
    if payload.reverse and payload.bidir:
        raise TaskError("bad_payload", "payload: give reverse or bidir, not both")
    if payload.tos is not None and payload.dscp is not None:
        raise TaskError("bad_payload", "payload: give tos or dscp, not both")
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
        raise TaskError("bad_payload", f"payload does not fit: {error}") from error


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_bind(bind: str | None) -> None:
    """Let only addresses pass: iperf3 would look a name up, and `-B` also takes `host%dev`."""
    if bind is not None and not _is_address(bind):
        raise TaskError("bad_payload", f"payload: bind must be an IP address, got {bind!r}")
