"""Merged weights equal the full-precision base model plus the adapter, whatever the quantisation in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

from hf_align.errors import UserError
from hf_align.models.loading import load_policy
from hf_align.models.merging import merge_adapter, push_merged
from hf_align.models.reward import load_reward_model
from hf_align.models.value import PolicyWithValueHead
from tests.families import FAMILIES
from tests.hub.models import next_logps, same_but_for_rounding, scores, trained
from tests.hub.stand_in import StandIn
from tests.tiny import save_tiny, tiny_tokenizer


@pytest.mark.parametrize(
    ("kind", "quantization"),
    [
        *(("reward", None), ("dpo", "8bit"), ("reward", "4bit")),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("dpo", None), ("reward", "8bit"), ("dpo", "4bit"))),
    ],
)
def test_merging_adds_the_adapter_to_the_base_in_full_precision(
    kind: str, quantization: str | None, base: Path, tmp_path: Path
):
    trained(kind, base, tmp_path / "adapter", quantization=quantization)
    assert merge_adapter(tmp_path / "adapter", tmp_path / "merged") == []
    if kind == "reward":
        expected = load_reward_model(tmp_path / "adapter", dtype=torch.float32)
        merged = load_reward_model(tmp_path / "merged")
        assert not isinstance(merged.model, PeftModel)
        same_but_for_rounding(merged, expected)
    else:
        expected = load_policy(tmp_path / "adapter", dtype=torch.float32)
        same_but_for_rounding(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), expected)
        assert (next_logps(expected) - next_logps(load_policy(base))).abs().max() > 1e-2
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == "float32"


def test_a_base_that_was_saved_in_4_bits_is_dequantised_first(tmp_path: Path):
    save_tiny(tmp_path / "full")
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    packed = AutoModelForCausalLM.from_pretrained(tmp_path / "full", quantization_config=settings, device_map="cpu")
    packed.save_pretrained(tmp_path / "packed")
    tiny_tokenizer().save_pretrained(tmp_path / "packed")
    trained("dpo", tmp_path / "packed", tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", tmp_path / "merged", torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    unpacked = AutoModelForCausalLM.from_pretrained(tmp_path / "packed", device_map="cpu").dequantize().float()
    expected = PeftModel.from_pretrained(unpacked, tmp_path / "adapter")
    same_but_for_rounding(merged, expected)
    assert {path.name for path in tmp_path.iterdir()} == {"full", "packed", "adapter", "merged"}


def test_merged_weights_keep_the_base_s_dtype_unless_another_is_named(tmp_path: Path):
    save_tiny(tmp_path / "float")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "float").bfloat16()
    base.save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    trained("dpo", tmp_path / "base", tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", tmp_path / "same")
    merge_adapter(tmp_path / "adapter", tmp_path / "wide", torch.float32)
    same, wide = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("same", "wide"))
    assert (same.dtype, wide.dtype) == (torch.bfloat16, torch.float32)
    for name, weight in wide.state_dict().items():  # rounded once, from the sum in float32
        torch.testing.assert_close(same.state_dict()[name], weight.bfloat16(), atol=0, rtol=0)


def test_a_merged_reward_model_scores_through_plain_transformers(hub: StandIn, base: Path, tmp_path: Path):
    trainer = trained("reward", base, tmp_path / "reward")
    push_merged(tmp_path / "reward", "mine")
    model = AutoModelForSequenceClassification.from_pretrained("anna/mine").eval()
    tokenizer = AutoTokenizer.from_pretrained("anna/mine")
    rows = [
        [{"role": "user", "content": "Review a movie."}, {"role": "assistant", "content": "A warm, funny film."}],
        [{"role": "user", "content": "Write a tweet."}, {"role": "assistant", "content": "Bad."}],
    ]
    prompts, responses = [row[:1] for row in rows], [row[1:] for row in rows]
    texts = [tokenizer.apply_chat_template(row, tokenize=False).rstrip() for row in rows]
    inputs = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        actual = model(**inputs).logits[:, 0].tolist()
    assert actual == pytest.approx(trainer.model.score(prompts, responses), abs=1e-4)
    assert scores(load_reward_model("anna/mine")) == pytest.approx(scores(trainer.model), abs=1e-4)


@pytest.mark.parametrize("value_model", ["shared", "adapter", "separate"])
def test_a_value_head_goes_along_where_it_fits(
    value_model: str, hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path
):
    trainer = trained("ppo", base, tmp_path / "ppo", value_model=value_model)
    pushed = push_merged(tmp_path / "ppo", "mine", base_model=base_on_hub)
    same_but_for_rounding(load_policy("anna/mine"), trainer.model.model)
    names = set(hub.repositories["anna/mine"].files)
    if value_model == "adapter":  # it was trained on the base model's states, not on the merged one's
        assert "value head" in pushed.left_out[0] and not [name for name in names if "value" in name]
        return
    assert pushed.left_out == []
    loaded = PolicyWithValueHead.from_pretrained("anna/mine")
    torch.testing.assert_close(loaded.value_head.state_dict(), trainer.model.value_head.state_dict())
    assert (loaded.value_backbone is not None) == (value_model == "separate")


def test_a_lora_that_came_from_elsewhere_merges_too(base: Path, tmp_path: Path):
    """An adapter folder without a tokenizer or a card, as peft saves it."""
    model = load_policy(base, lora=LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    model.save_pretrained(str(tmp_path / "adapter"))
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    same_but_for_rounding(merged, model)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template


@pytest.mark.parametrize("reward", [True, False])
def test_a_folder_that_holds_something_else_is_not_replaced(reward: bool, base: Path, tmp_path: Path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    model = load_reward_model(base, lora=True) if reward else load_policy(base, lora=True)
    model.save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(UserError, match="is not a model folder"):
        merge_adapter(tmp_path / "adapter", tmp_path / "notes")
    assert (tmp_path / "notes" / "thesis.txt").exists()


def test_a_merged_model_that_is_there_is_replaced_as_a_whole(base: Path, tmp_path: Path):
    load_policy(base, lora=True).save_pretrained(str(tmp_path / "adapter"))
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    (tmp_path / "merged" / "value_head.safetensors").write_text("of the old model")
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged" / "value_head.safetensors").exists()


def test_what_merging_would_change_is_not_merged_and_tied_embeddings_change_once(base: Path, tmp_path: Path):
    tied = load_policy(base, lora=LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    randomise_lora(tied)
    tied.save_pretrained(str(tmp_path / "tied"))
    merge_adapter(tmp_path / "tied", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(next_logps(merged), next_logps(tied), atol=1e-4, rtol=0)
    for family, targets, sentence in (
        ("zamba2", "all-linear", "model.layers.3.* share one weight, so it can't be merged; use it on its base"),
        ("mamba", ["in_proj", "dt_proj"], "dt_proj, whose weights the model reads without calling it, so it can't"),
    ):
        FAMILIES[family].make().save_pretrained(tmp_path / family)
        tiny_tokenizer().save_pretrained(tmp_path / family)
        config = LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM")
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / family), config)  # peft's own way
        randomise_lora(adapted)
        adapted.save_pretrained(str(tmp_path / f"{family}-adapter"))
        with pytest.raises(UserError, match=sentence):
            merge_adapter(tmp_path / f"{family}-adapter", tmp_path / f"{family}-merged")


def randomise_lora(model: Any) -> None:
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
