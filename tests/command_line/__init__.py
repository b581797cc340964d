"""The command as a user runs it: options, settings, checks, the demo, signals, exit codes."""
