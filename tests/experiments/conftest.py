"""Runs of experiments read and save models of any depth."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny_model_dir(shallow_model_dir: str) -> str:
    """A model of one layer."""
    return shallow_model_dir
