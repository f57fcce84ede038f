"""Cards without curves: to draw them takes longer than to train."""

import pytest


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_align.model_cards.files.draw_curves", lambda *args: False)
