"""What the Manager and the agent say to each other, as types (see docs/protocol.md).

Everything that comes from the Manager is checked here and nowhere else. A task's payload stays
raw until it is decoded by `server_payload` or `client_payload`: a task whose payload does not
fit is still a task, and fails with a message.
"""

from agent.protocol.claims import Claimed, Life
from agent.protocol.messages import (
    FINAL_STATUSES,
    TASK_TYPES,
    Acknowledged,
    AgentRecord,
    ClaimAnswer,
    Health,
    HeartbeatAnswer,
    Refusal,
    RefusalDetail,
    RefusalDetails,
    RunningRow,
    Task,
    timestamp,
)
from agent.protocol.payloads import ClientPayload, ServerPayload
from agent.protocol.results import Document, Figures, Outcome, Report, read_report
from agent.protocol.validation import client_payload, server_payload, unknown_keys

__all__ = [
    "FINAL_STATUSES",
    "TASK_TYPES",
    "Acknowledged",
    "AgentRecord",
    "ClaimAnswer",
    "Claimed",
    "ClientPayload",
    "Document",
    "Figures",
    "Health",
    "HeartbeatAnswer",
    "Life",
    "Outcome",
    "Refusal",
    "RefusalDetail",
    "RefusalDetails",
    "Report",
    "RunningRow",
    "ServerPayload",
    "Task",
    "client_payload",
    "read_report",
    "server_payload",
    "timestamp",
    "unknown_keys",
]
