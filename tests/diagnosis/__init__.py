"""What the kernel knows of tests: sockets, threads, interfaces."""
