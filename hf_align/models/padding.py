"""A pad token that is not EOS, which reward models need."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_align.errors import UserError


def set_distinct_pad_token(tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """Give tokenizer and model config a pad token that is not EOS, from the tokens the vocabulary has.

    Raises:
        UserError: If it has none that would do.
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        vocabulary = tokenizer.get_vocab()
        usual = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<|vision_pad|>", "<unk>")
        token = next((t for t in usual if t in vocabulary and t != tokenizer.eos_token), None)
        if token is None:
            raise UserError("The tokenizer's pad token is its EOS; set tokenizer.pad_token to another token it has.")
        tokenizer.pad_token = token
    config.get_text_config().pad_token_id = config.pad_token_id = tokenizer.pad_token_id
