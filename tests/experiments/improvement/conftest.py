"""The model of the rounds' tests: of two layers, since one judges its own responses all alike and no pair is left."""

from __future__ import annotations

import pytest

from tests.tiny import save_tiny


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """As in most rooms, not that of `tests/experiments`."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))
