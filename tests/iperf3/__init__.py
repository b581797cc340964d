"""Tests of agent.iperf3, most of them over what real iperf3s printed (see record.py)."""
