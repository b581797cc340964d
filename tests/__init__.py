"""Tests on real parts: real iperf3, real sockets, real signals, real processes."""
