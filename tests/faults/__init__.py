"""Tests that break something for real."""
