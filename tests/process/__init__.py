"""Processes of the operating system: children, their identity, their ports."""
