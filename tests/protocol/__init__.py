"""The messages as types: what is accepted, and how the rest is refused."""
