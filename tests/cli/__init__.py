"""Tests of the command as a user runs it: options, checks, the demo, exit codes."""
