"""Tests of what the agent says in its log, and of where that goes."""
