"""One running agent: its loops, its signals, its end."""
