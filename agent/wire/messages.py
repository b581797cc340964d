"""What the Manager and the agent send each other, but for the payloads of tasks."""

from typing import Literal

import msgspec
from msgspec import Struct

TASK_TYPES = ("iperf_server_start", "iperf_client_run", "kill_all")


class Task(Struct, frozen=True):
    """One task as it was claimed. `payload` is the undecoded JSON of its parameters.

    `status` is `accepted`, but for a claim that is replayed after its task has ended.
    `unreadable` says why the payload is none: the task fails with that.
    """

    id: int
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    status: str = "accepted"
    unreadable: str = ""


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
    """One row of the heartbeat's `running` list; `started_at` is UTC in ISO 8601.

    `bits_per_second` lately and `retransmits` so far are known of a client that streams them.
    """

    type: Literal["server", "client"]
    port: int
    pid: int
    task_id: int
    started_at: str
    bits_per_second: float | None = None
    retransmits: int | None = None


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


class Figures(Struct, frozen=True, omit_defaults=True):
    """What a test measured, for whoever looks at the agent; the Manager gets the document.

    `sent`, `received` and `rates`, the sums of the intervals, are in bits per second. `direction`
    is forward (the client sends), reverse, or bidirectional, where the client's sending counts.
    """

    direction: str = "forward"
    sent: float | None = None
    received: float | None = None
    retransmits: float | None = None
    jitter_ms: float | None = None
    lost_percent: float | None = None
    rates: list[float] = []


class Outcome(Struct, frozen=True):
    """What is reported of a task: at most one of `document` and `answer` beside the report.

    `stderr` is what an operator reads at the Manager; `answer` holds the agent's own keys of
    the result (`started`, `killed`, ...). Only of a server are there more, until the `final` one.
    """

    status: Literal["succeeded", "failed"]
    report: Report
    exit_code: int = 0
    stderr: str = ""
    answer: dict[str, bool | int] = {}
    document: Document | None = None
    final: bool = True
    figures: Figures | None = None
