"""What the agent does, for whoever asks it over HTTP: health, numbers, and a page."""

from agent.status.server import StatusServer

__all__ = ["StatusServer"]
