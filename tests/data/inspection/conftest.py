"""The tokenizers of the collators' tests."""

from tests.collators.conftest import bos_tokenizer, make_tokenizer, tokenizer

__all__ = ["bos_tokenizer", "make_tokenizer", "tokenizer"]
