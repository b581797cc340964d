"""Tests that deploy on a whole machine: a Debian that is booted in a container."""
