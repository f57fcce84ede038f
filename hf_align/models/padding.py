"""Pad tokens other than EOS, needed by reward models."""

from __future__ import annotations

from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from hf_align.errors import UserError


def set_distinct_pad_token(tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """Give tokenizer and model config a pad token that is not EOS, from the tokens that both have.

    Raises:
        UserError: The vocabulary has no suitable token.
    """
    count = getattr(config.get_text_config(), "vocab_size", None) or len(tokenizer)
    pad = cast(int | None, tokenizer.pad_token_id)
    if pad is None or pad == tokenizer.eos_token_id or pad >= count:
        vocabulary = {token: number for token, number in tokenizer.get_vocab().items() if number < count}
        usual = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<|vision_pad|>", "<unk>")
        token = next((t for t in usual if t in vocabulary and t != tokenizer.eos_token), None)
        if token is None:
            if pad is not None and pad >= count:
                raise UserError(
                    f"The tokenizer's pad token is none of the model's {count} tokens; set tokenizer.pad_token to one."
                )
            raise UserError("The tokenizer's pad token is its EOS; set tokenizer.pad_token to another token it has.")
        tokenizer.pad_token = token
    config.get_text_config().pad_token_id = config.pad_token_id = tokenizer.pad_token_id
