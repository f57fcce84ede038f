"""Collators: rows of a preference data set become branch batches."""

from hf_align.collators.checks import Findings, check_preferences, inspect_preferences
from hf_align.collators.preference import PreferenceCollator, find_pad_token_id
from hf_align.collators.tokenization import tokenize_preferences

__all__ = [
    "Findings",
    "PreferenceCollator",
    "check_preferences",
    "find_pad_token_id",
    "inspect_preferences",
    "tokenize_preferences",
]
