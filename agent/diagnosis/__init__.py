"""Why a test was as fast as it was: what the kernel knows of its sockets, threads and host."""
