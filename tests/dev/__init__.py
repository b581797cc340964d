"""Tests of the dev Manager."""
