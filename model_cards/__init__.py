"""Model cards: facts of a training run as the README.md that the Hub shows."""

from hf_align.model_cards.facts import CardFacts, Evaluation, as_evaluations
from hf_align.model_cards.files import CARD_FILES, card_told, describe_folder, load_facts, save_card
from hf_align.model_cards.render import card_metadata, render_card

__all__ = [
    "CARD_FILES",
    "CardFacts",
    "Evaluation",
    "as_evaluations",
    "card_metadata",
    "card_told",
    "describe_folder",
    "load_facts",
    "render_card",
    "save_card",
]
