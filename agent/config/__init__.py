"""The settings: each one once, checked, with where it came from."""
