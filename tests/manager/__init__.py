"""Tests of what goes between the agent and its Manager."""
