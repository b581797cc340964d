"""The command line: its options, and what each of its ways to run does."""
