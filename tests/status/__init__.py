"""Tests of the status page, the health checks and the metrics."""
