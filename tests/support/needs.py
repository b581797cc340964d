"""What a test of faults needs of its host."""

import os

import pytest


def need(met: object, words: str) -> None:
    """Skip the calling module at its import unless `met`, in these words; in CI fail it instead."""
    if met:
        return
    if os.environ.get("CI"):
        raise RuntimeError(f"{words}: CI must not skip")
    pytest.skip(words, allow_module_level=True)
