"""Tiny reward models in the layouts that the Hub has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from tests.tiny import save_tiny, tiny_config, tiny_tokenizer

SMALL: dict[str, Any] = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}


def small(outputs: int) -> dict[str, Any]:
    return {**SMALL, "num_labels": outputs}


def pair_tokenizer(**special: Any) -> PreTrainedTokenizerFast:
    """One token per byte, as BERT's: `[CLS] a [SEP] b [SEP]`, with segments, without EOS or chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[PAD]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 256), ("[SEP]", 257)]
    )
    names: dict[str, Any] = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", **special}
    names.setdefault("model_input_names", ["input_ids", "token_type_ids", "attention_mask"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def save(folder: Path, model: Any, tokenizer: Any, **config: Any) -> str:
    for name, value in config.items():
        setattr(model.config, name, value)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def llama(**settings: Any) -> LlamaForSequenceClassification:
    return LlamaForSequenceClassification(tiny_config(num_labels=1, **settings))


def without_template() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    return tokenizer


def llama_adapter(folder: Path) -> str:
    base = save_tiny(folder / "base")
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"], init_lora_weights=False)
    model = LlamaForSequenceClassification.from_pretrained(base, num_labels=1)
    return save(folder / "adapter", get_peft_model(model, config), tiny_tokenizer())


def bert_adapter(folder: Path) -> str:
    """Two outputs, on a bare encoder whose pooler is stored."""
    base = save(folder / "base", BertModel(BertConfig(**SMALL, pad_token_id=258)), pair_tokenizer())
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False)
    model = BertForSequenceClassification.from_pretrained(base, num_labels=2)
    return save(folder / "adapter", get_peft_model(model, config), pair_tokenizer())


LAYOUTS: dict[str, Callable[[Path], str]] = {
    "decoder": lambda folder: save(folder, llama(), tiny_tokenizer()),
    "pad is EOS": lambda folder: save(
        folder, llama(pad_token_id=258), tiny_tokenizer(pad_token="<|im_end|>"), pad_token_id=258
    ),
    "no pad token": lambda folder: save(folder, llama(pad_token_id=None), tiny_tokenizer(pad_token=None)),
    "no chat template": lambda folder: save(folder, llama(), without_template()),
    "learnt positions": lambda folder: save(
        folder,
        GPT2ForSequenceClassification(
            GPT2Config(
                **{"vocab_size": 260, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "num_labels": 1},
                **{"initializer_range": 0.3, "bos_token_id": 256, "eos_token_id": 258, "pad_token_id": 259},
            )
        ),
        without_template(),
    ),
    "ten outputs": lambda folder: save(
        folder,
        Qwen2ForSequenceClassification(
            Qwen2Config(**small(10), num_key_value_heads=2, pad_token_id=259, tie_word_embeddings=True)
        ),
        tiny_tokenizer(),
        id2label={n: f"attribute-{n}" for n in range(9)} | {9: "overall"},
        problem_type="regression",
    ),
    "encoder": lambda folder: save(
        folder,
        BertForSequenceClassification(BertConfig(**small(1), pad_token_id=258)),
        pair_tokenizer(),
    ),
    "relative positions": lambda folder: save(
        folder,
        DebertaV2ForSequenceClassification(
            DebertaV2Config(**small(1), pad_token_id=258, relative_attention=True, pos_att_type=["p2c", "c2p"])
        ),
        pair_tokenizer(),
    ),
    "two classes": lambda folder: save(
        folder,
        DistilBertForSequenceClassification(
            DistilBertConfig(
                vocab_size=260, dim=32, hidden_dim=64, n_layers=2, n_heads=4, pad_token_id=258, initializer_range=0.3
            )
        ),
        pair_tokenizer(model_input_names=["input_ids", "attention_mask"]),
        id2label={0: "worse", 1: "Better"},
        problem_type="single_label_classification",
    ),
    "padding counts": lambda folder: save(  # its head reads the last column, whatever is there
        folder,
        XLNetForSequenceClassification(
            XLNetConfig(
                **{"vocab_size": 260, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "num_labels": 1},
                **{"initializer_range": 0.3, "pad_token_id": 258},
            )
        ),
        pair_tokenizer(model_input_names=["input_ids", "attention_mask"]),
    ),
    "adapter": llama_adapter,
    "adapter with two outputs": bert_adapter,
}
"""Functions that save a layout in a folder and return the folder to load."""
