"""Measurements of the whole agent against a dev Manager. None of them asserts anything."""
