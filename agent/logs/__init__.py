"""Log lines: what they look like, where they go, and how repeated failures are summed up."""
