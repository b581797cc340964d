"""Messages for the Manager: each arrives once, in order, whatever happens."""
