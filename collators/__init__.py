"""Collators: from rows of a data set to token ids and branch batches."""

from typing import TYPE_CHECKING

from hf_align.lazy import lazy_names

if TYPE_CHECKING:
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

# Reading rows needs no torch, batches do: commands that only read and write rows start without it.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "checks": ("Findings", "check_preferences", "find_bad_rows"),
        "collate": ("PreferenceCollator", "find_pad_token_id"),
        "prompts": ("encode_prompts", "tokenize_prompts"),
        "tokenize": ("tokenize_preferences",),
    },
)
