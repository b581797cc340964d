"""Tasks: from what was claimed to the outcomes that are reported."""
