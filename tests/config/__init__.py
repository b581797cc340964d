"""Tests of the settings: what is accepted, where each comes from, and the registration key."""
