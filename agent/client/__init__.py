"""The calls to the Manager: one request in, one answer or one error of ours out.

Nothing is retried here: whoever calls knows whether and when to ask again. This is the only room
that uses requests.
"""

from agent.client.body import Body
from agent.client.manager import LONG_POLL_WAIT, Claim, ManagerClient
from agent.client.transport import Access

__all__ = ["LONG_POLL_WAIT", "Access", "Body", "Claim", "ManagerClient"]
