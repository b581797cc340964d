"""One running agent: its loops, its signals, its start and its end."""
