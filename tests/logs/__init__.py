"""What the agent says in its log, and where that goes."""
