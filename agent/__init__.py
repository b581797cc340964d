"""Iperf Orchestrator Agent: claims iperf3 tasks from a Manager and reports what happened."""

__version__ = "0.1.0"
