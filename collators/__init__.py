"""Collators: rows of a data set become token ids and branch batches."""

from hf_align.collators.checks import Findings, check_preferences, inspect_preferences
from hf_align.collators.preference import PreferenceCollator, find_pad_token_id
from hf_align.collators.prompts import tokenize_prompts
from hf_align.collators.tokenization import tokenize_preferences

__all__ = [
    "Findings",
    "PreferenceCollator",
    "check_preferences",
    "find_pad_token_id",
    "inspect_preferences",
    "tokenize_preferences",
    "tokenize_prompts",
]
