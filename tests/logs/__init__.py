"""Tests of the log: its lines, and where they go."""
