"""Collators: from rows of a data set to token ids and branch batches."""

from hf_align.collators.checks import Findings, check_preferences, find_bad_rows
from hf_align.collators.collate import PreferenceCollator, find_pad_token_id
from hf_align.collators.prompts import encode_prompts, tokenize_prompts
from hf_align.collators.tokenize import tokenize_preferences

__all__ = [
    "Findings",
    "PreferenceCollator",
    "check_preferences",
    "encode_prompts",
    "find_bad_rows",
    "find_pad_token_id",
    "tokenize_preferences",
    "tokenize_prompts",
]
