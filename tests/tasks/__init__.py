"""Tasks from end to end: a real agent, a real Manager, real iperf3."""
