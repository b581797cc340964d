"""The payloads of tasks as types. Each description completes "port must be ..."."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType


def _text(pattern: str, words: str, most: int = 253) -> Meta:
    return Meta(pattern=rf"^{pattern}\Z", max_length=most, description=words)


def _pem(kind: str, start: str = "") -> str:
    return rf"\s*-----BEGIN {kind}-----\s+{start}[A-Za-z0-9+/=\s]+-----END {kind}-----\s*"


Port = Annotated[int, Meta(ge=1, le=65535)]
# A first filter: `agent.protocol.validation` checks what a pattern cannot. No leading dash.
_HOST = "[A-Za-z0-9_:][A-Za-z0-9_.:%-]*"
Host = Annotated[str, _text(_HOST, "a host name or an IP address")]
Address = Annotated[str, _text(_HOST, "an IP address")]
# The kernel takes 15 characters at most for these two.
Device = Annotated[str, _text("[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}", "a network interface")]
Algorithm = Annotated[str, _text("[a-z0-9][a-z0-9_-]{0,14}", "a congestion control such as cubic")]
# iperf3's names, of which only newer ones know `va`.
_DSCP = "(?i:af[1-4][1-3]|cs[0-7]|ef|va|lowdelay|throughput|reliability)"
DscpName = Annotated[str, _text(_DSCP, "a DSCP class such as af11")]
Core = Annotated[int, Meta(ge=0, le=999, description="a core number from 0 to 999")]
_TWO_CORES = 'two of them, for the client and the server, such as "0,1"'
CorePair = Annotated[str, _text("[0-9]{1,3}(,[0-9]{1,3})?", _TWO_CORES)]
IpVersion = Literal[4, 6]
_KEEP_ALIVE = "IDLE/INTERVAL/COUNT in seconds and probes, such as 20/5/3"
KeepAlive = Annotated[str, _text("[0-9]{1,5}(/[0-9]{1,5}){0,2}", _KEEP_ALIVE)]
ReceiveTimeout = Annotated[int, Meta(ge=100, le=86_400_000)]
SendTimeout = Annotated[int, Meta(ge=1, le=86_400_000)]
_USER = "[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}"
User = Annotated[str, _text(_USER, "a user name, of at most 64 letters, digits and _.@+-")]
# iperf3 reads it up to a blank. So much fits, with a user and a time, into what a key of 2048 bits
# encrypts with OAEP padding.
_PASSWORD = "1 to 120 characters of ASCII without blanks"
Password = Annotated[str, _text("[!-~]{1,120}", _PASSWORD)]
# Base64 of RSA's number (RFC 8017), which may begin in the middle of three bytes: with a key of
# another kind, iperf3 3.12 crashes at its first client.
_RSA = "M[A-Za-z0-9+/]{5,12}(BgkqhkiG9w0BAQEF|GCSqGSIb3DQEBAQUA)"
_PUBLIC = _text(_pem("PUBLIC KEY", _RSA), "an RSA public key in PEM", 16384)
PublicKey = Annotated[str, _PUBLIC]
_PRIVATE = f"({_pem('PRIVATE KEY', _RSA)}|{_pem('RSA PRIVATE KEY')})"
_NO_PASSPHRASE = "an RSA private key in PEM, without a passphrase"
PrivateKey = Annotated[str, _text(_PRIVATE, _NO_PASSPHRASE, 16384)]
# iperf3 would take a line of any other form for nobody's.
_LINE, _LINES = f"{_USER},[0-9a-f]{{64}}", "lines of USER,SHA256 with the hash in lower case"
Users = Annotated[str, _text(rf"({_LINE}\r?\n)*{_LINE}(\r?\n)?", _LINES, 65536)]
TaskIds = Annotated[list[int], Meta(description="a list of task numbers")]
Seconds = Annotated[float, Meta(gt=0, description="a number of seconds above 0")]


class ServerPayload(Struct, frozen=True):
    """The parameters of an `iperf_server_start` task. Times are in seconds unless named ms.

    `udp` changes nothing: an iperf3 server serves both protocols and has no option for it.
    """

    port: Port
    udp: bool = False
    bind: Address | None = None
    bind_dev: Device | None = None
    ip_version: IpVersion | None = None
    one_off: bool = False
    affinity: Core | None = None
    max_seconds: Seconds | None = None
    idle_timeout: Annotated[int, Meta(ge=1, le=86400)] | None = None
    rcv_timeout_ms: ReceiveTimeout | None = None
    snd_timeout_ms: SendTimeout | None = None
    cntl_ka: bool | KeepAlive = False
    mptcp: bool = False
    rsa_private_key: PrivateKey | None = None
    authorized_users: Users | None = None
    time_skew_threshold: Annotated[int, Meta(ge=1, le=86400)] | None = None
    use_pkcs1_padding: bool = False


class ClientPayload(Struct, frozen=True):
    """The parameters of an `iperf_client_run` task.

    Times are in seconds unless the name says ms, sizes in bytes, rates in bits per second and
    stream. The bounds are the widest of iperf3 3.12 to 3.22; a version with a closer bound refuses
    the value itself.
    """

    server_ip: Host
    port: Port
    udp: bool = False
    bitrate: Annotated[int, Meta(ge=0, le=10**13)] | None = None
    parallel: Annotated[int, Meta(ge=1, le=128)] = 1
    time: Annotated[int, Meta(ge=1, le=86400)] = 10
    client_delay_seconds: Annotated[float, Meta(ge=0, le=3600)] = 0
    max_retries: Annotated[int, Meta(ge=0, le=100)] = 3
    retry_delay_seconds: Annotated[float, Meta(ge=0, le=3600)] = 2
    reverse: bool = False
    bidir: bool = False
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
    bind: Address | None = None
    bind_dev: Device | None = None
    cport: Port | None = None
    affinity: Core | CorePair | None = None
    connect_timeout_ms: Annotated[int, Meta(ge=1, le=60_000)] = 5000
    dont_fragment: bool = False
    udp_counters_64bit: bool = False
    rcv_timeout_ms: ReceiveTimeout | None = None
    snd_timeout_ms: SendTimeout | None = None
    cntl_ka: bool | KeepAlive = False
    mptcp: bool = False
    gsro: bool = False
    skip_rx_copy: bool = False
    username: User | None = None
    password: Password | None = None
    rsa_public_key: PublicKey | None = None
    use_pkcs1_padding: bool = False


class KillAllPayload(Struct, frozen=True):
    """The parameters of a `kill_all` task. Without `task_ids` it is for all earlier tasks."""

    task_ids: TaskIds | UnsetType = UNSET


# What a client needs for a login, and a server to ask for one.
LOGINS = (("username", "password", "rsa_public_key"), ("rsa_private_key", "authorized_users"))
# Nothing of their values is ever shown: one may have been given for the other.
SECRET = frozenset(LOGINS[0][1:] + LOGINS[1])

# By the type of the task.
PAYLOADS: dict[str, type[Struct]] = {
    "iperf_server_start": ServerPayload,
    "iperf_client_run": ClientPayload,
    "kill_all": KillAllPayload,
}
