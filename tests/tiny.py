"""Models of two layers and a tokenizer of single bytes, for tests that aren't about language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer(**special: str | None) -> PreTrainedTokenizerFast:
    """One token per byte (0-255), then `<|endoftext|>`, `<|im_start|>`, `<|im_end|>` (EOS), `<pad>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>"])
    settings: dict[str, Any] = {"eos_token": "<|im_end|>", "pad_token": "<pad>", **special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=CHAT, **settings)


def tiny_config(**settings: Any) -> LlamaConfig:
    defaults = {
        "vocab_size": 260,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "tie_word_embeddings": True,
        "bos_token_id": 256,
        "eos_token_id": 258,
        "pad_token_id": 259,
    }
    return LlamaConfig(**{**defaults, **settings})


def tiny_model(seed: int = 0, **settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(tiny_config(**settings)).eval()


def save_tiny(directory: Path, **settings: Any) -> str:
    """A folder with a tiny model and its tokenizer."""
    tiny_model(**settings).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return str(directory)
