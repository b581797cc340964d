"""What the Manager and the agent say to each other, as types (see docs/protocol.md).

All that the Manager sends is checked here and nowhere else. The payload of a task stays raw until
`read_payload` decodes it: a task with a bad payload is still a task, and fails with a message.
"""

from agent.protocol.diagnoses import Cause, Diagnosis
from agent.protocol.messages import (
    FINAL_STATUSES,
    Acknowledged,
    AgentRecord,
    ClaimAnswer,
    Claimed,
    Health,
    HeartbeatAnswer,
    Origin,
    Refusal,
    RefusalDetail,
    RunningRow,
    Task,
)
from agent.protocol.moments import Moment, timestamp, utc_now
from agent.protocol.payloads import PAYLOADS, ClientPayload, KillAllPayload, ServerPayload
from agent.protocol.results import Document, Figures, Flow, Form, Outcome, Report, read_report
from agent.protocol.validation import read_payload, unknown_keys
