"""Cards as the Hub's client reads them."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCard


def card_data(card: str | bytes) -> Any:
    """The metadata of a README.md."""
    return ModelCard(card.decode() if isinstance(card, bytes) else card).data
