"""What the agent says: log lines, where they go, and failures that repeat."""
