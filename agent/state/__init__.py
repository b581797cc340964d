"""What lies on the disk: the state directory, its journal, and the results that wait in it."""
