"""Tests of what a run of the benchmarks keeps and says."""
