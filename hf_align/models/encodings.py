"""Comparison of two tokenizers' encodings."""

from __future__ import annotations

import json
from typing import Any

from transformers import PreTrainedTokenizerBase

RULES = ("model", "normalizer", "pre_tokenizer", "post_processor")
"""Parts of a tokenizer file that determine ids, including merges and an added BOS."""


def encoding_difference(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase) -> str | None:
    """Name the difference that makes two tokenizers encode some text or conversation differently, or None.

    Names and padding tokens, which reward models set themselves, don't count.
    """
    if first is second:
        return None
    padding = [first.pad_token_id, second.pad_token_id]
    for name, read in {
        "vocabulary": lambda tokenizer: tokenizer.get_vocab(),
        "chat template": lambda tokenizer: tokenizer.chat_template,
        "special tokens": lambda tokenizer: _special_tokens(tokenizer, padding),
        "rules": _rules,
    }.items():
        if read(first) != read(second):
            return name
    return None


def _special_tokens(tokenizer: PreTrainedTokenizerBase, padding: list[Any]) -> tuple[Any, ...]:
    named = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    others = {number: token for number, token in tokenizer.added_tokens_decoder.items() if number not in padding}
    return (*named, others)


def _rules(tokenizer: Any) -> Any:
    """Rules from text to ids; for tokenizers not from `tokenizers`, the class."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return type(tokenizer)
    whole = json.loads(backend.to_str())
    return {part: whole[part] for part in RULES}
