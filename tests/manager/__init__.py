"""Calls to the Manager: how they look, how they fail, and what each answer means."""
