"""What lies on the disk: the directory, the journal, and results that wait."""
