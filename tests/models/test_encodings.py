"""Tokenizers are equal if they give the same ids, whatever their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import models, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_align.models.encodings import encoding_difference
from tests.tiny import tiny_tokenizer


def other_template() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    return tokenizer


def other_token() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    return tokenizer


def with_merges(*merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    vocabulary = {token: number for token, number in tokenizer.get_vocab().items() if number < 256}
    joined = {"ab": 260, "bc": 261, "abc": 262}
    tokenizer.backend_tokenizer.model = models.BPE({**vocabulary, **joined}, list(merges))
    return tokenizer


def with_start() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    start = processors.TemplateProcessing("<|im_start|> $A", special_tokens=[("<|im_start|>", 257)])
    tokenizer.backend_tokenizer.post_processor = start
    return tokenizer


def test_a_saved_tokenizer_is_the_same_and_padding_does_not_count(tmp_path: Path):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again is not tokenizer and encoding_difference(tokenizer, again) is None
    again.pad_token = "<|endoftext|>"
    again.padding_side, again.model_max_length = "left", 7
    assert encoding_difference(tokenizer, again) is None
    again(["a", "bc"], padding=True, truncation=True, max_length=2)
    assert encoding_difference(tokenizer, again) is None, "what a call set isn't the tokenizer's"


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        (tiny_tokenizer, other_token, "vocabulary"),
        (tiny_tokenizer, other_template, "chat template"),
        (tiny_tokenizer, lambda: tiny_tokenizer(eos_token="<|endoftext|>"), "special tokens"),
        (tiny_tokenizer, with_start, "rules"),
        (lambda: with_merges(("a", "b"), ("ab", "c")), lambda: with_merges(("b", "c"), ("a", "bc")), "rules"),
    ],
    ids=["a token", "template", "eos", "bos", "merges"],
)
def test_what_differs_is_named(first, second, difference: str):
    assert encoding_difference(first(), second()) == difference
    assert encoding_difference(second(), first()) == difference
    assert encoding_difference(first(), first()) is None
