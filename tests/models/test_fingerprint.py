"""A base is known by its weights: not by its name, nor by how they were loaded."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    GPT2Config,
    GPT2LMHeadModel,
)

from hf_align import DPOConfig, DPOTrainer
from hf_align.errors import LoadError, UserError
from hf_align.files import BASE_FINGERPRINT
from hf_align.models.adapters import REFERENCE_ADAPTER, active_adapter, add_frozen_copy
from hf_align.models.fingerprint import BaseDiffers, check_base, fingerprint_of, write_fingerprint
from hf_align.models.loading import load_policy
from hf_align.models.merging import merge_adapter
from hf_align.models.policy import PolicyModel
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.value import PolicyWithValueHead
from tests.tiny import save_tiny, tiny_tokenizer
from tests.trainers.pairs import options, pairs

NEW = LoraConfig(r=4, target_modules=["q_proj", "down_proj"])
LORA = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def load(folder: str, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, **options)


def in_bits(count: int, **options: Any) -> dict[str, Any]:
    settings = BitsAndBytesConfig(**{f"load_in_{count}bit": True, **options})
    return {"quantization_config": settings, "device_map": "cpu"}


def with_merged_adapter(model: Any) -> Any:
    torch.manual_seed(7)
    merged: Any = get_peft_model(model, LORA).merge_and_unload()
    return merged


NF4 = in_bits(4, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)


def test_the_way_of_loading_changes_no_fingerprint(folder: str, tmp_path: Path):
    expected = fingerprint_of(load(folder))
    assert expected.vocabulary == 260 and len(expected.samples) == 20
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    for name, model in {
        "bf16": load(folder, dtype=torch.bfloat16),
        "fp16": load(folder, dtype=torch.float16),
        "int8": load(folder, **in_bits(8)),
        "nf4": load(folder, **NF4),
        "fp4": load(folder, **in_bits(4), dtype=torch.bfloat16),
        "classifier": classifier,
        "adapter": get_peft_model(load(folder), LoraConfig(target_modules="all-linear", modules_to_save=["norm"])),
        "tokens": get_peft_model(load(folder), LoraConfig(target_modules=["q_proj"], trainable_token_indices=[3])),
    }.items():
        assert expected.differing(fingerprint_of(model)) == [], name
        assert fingerprint_of(model).differing(expected) == [], name
    write_fingerprint(load(folder), tmp_path)
    check_base(load(folder, dtype=torch.bfloat16), tmp_path, "the base")


def test_a_transposed_matrix_that_is_quantised_counts_as_it_is_stored(tmp_path: Path):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=260, n_embd=64, n_layer=1, n_head=4, n_positions=32))
    model.save_pretrained(tmp_path)
    for quantised in (in_bits(8), NF4):
        assert fingerprint_of(model).differing(fingerprint_of(load(str(tmp_path), **quantised))) == []


@torch.no_grad()
def test_each_change_of_a_base_shows(folder: str):
    base = fingerprint_of(load(folder))
    changes: dict[str, Callable[[Any], Any]] = {
        "a norm": lambda model: model.model.norm.weight.mul_(1.01),
        "a token": lambda model: model.model.embed_tokens.weight[200].add_(0.1),
        "a layer": lambda model: model.model.layers[1].mlp.up_proj.weight.mul_(1.001),
        "a token more": lambda model: model.resize_token_embeddings(261),
        "a layer less": lambda model: model.model.layers.pop(1),
        "an adapter": with_merged_adapter,
    }
    for name, change in changes.items():
        changed = load(folder)
        change(changed)
        names = base.differing(fingerprint_of(changed))
        assert names, name
        assert len(names) == {"an adapter": 4, "a layer less": 9}.get(name, 1), (name, names)
    longer = load(folder)
    longer.resize_token_embeddings(300)
    assert base.differing(fingerprint_of(longer), any_vocabulary=True) == []


@pytest.mark.parametrize("quantised", [in_bits(8), NF4], ids=["int8", "nf4"])
def test_quantised_weights_that_were_changed_count_as_what_they_are_now(
    folder: str, tmp_path: Path, quantised: dict[str, Any]
):
    changed = with_merged_adapter(load(folder, **quantised))
    names = fingerprint_of(load(folder, **quantised)).differing(fingerprint_of(changed))
    assert {name for name in names if "q_proj" in name or "down_proj" in name} and len(names) == 14
    again = fingerprint_of(changed)
    changed.dequantize().save_pretrained(tmp_path)  # the way out: a folder of its own
    assert again.differing(fingerprint_of(load(str(tmp_path)))) == []


def test_an_adapter_is_not_loaded_onto_other_weights_than_it_was_trained_on(folder: str, tmp_path: Path):
    changed = with_merged_adapter(load(folder))
    trainer = DPOTrainer(
        changed,
        args=DPOConfig(**options(tmp_path / "run", save_strategy="steps", save_steps=1)),
        train_dataset=pairs(2),
        processing_class=tiny_tokenizer(),
        peft_config=NEW,
    )
    trainer.train()
    trainer.save_model()
    for saved in (tmp_path / "run", tmp_path / "run" / "checkpoint-1"):
        with pytest.raises(BaseDiffers, match=rf"than {folder}: layers.0.self_attn.q_proj.weight, .* 2 more differ"):
            load_policy(saved)
    with pytest.raises(BaseDiffers, match="was trained on a base with other weights"):
        merge_adapter(tmp_path / "run", tmp_path / "merged")
    other = DPOTrainer(
        folder, args=DPOConfig(**options(tmp_path / "run", max_steps=2)), train_dataset=pairs(2), peft_config=NEW
    )
    with pytest.raises(BaseDiffers, match="other weights than the model to train"):
        other.train(resume_from_checkpoint=True)

    with_merged_adapter(load(folder)).save_pretrained(tmp_path / "base")  # what the message says
    config = tmp_path / "run" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(tmp_path / "base")}))
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        torch.testing.assert_close(load_policy(tmp_path / "run")(ids).logits, trainer.model.model.eval()(ids).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_reward_model_is_merged_with_the_weights_it_has(folder: str, tmp_path: Path, dtype: torch.dtype):
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=dtype)
    lora = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, task_type="SEQ_CLS")
    model = RewardModel(get_peft_model(with_merged_adapter(classifier), lora), tiny_tokenizer())
    texts = ["Say 1:", "Say something longer:"], [" yes", " no"]
    model.merge_and_save(tmp_path / "merged")
    merged = load_reward_model(tmp_path / "merged", dtype=torch.float32)
    model.model.float()
    assert merged.score(*texts) == pytest.approx(model.score(*texts), abs=1e-4)
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(BaseDiffers):
        load_reward_model(tmp_path / "adapter")


def test_values_start_from_no_reward_model_on_another_base(folder: str):
    policy = load_policy(folder, lora=LORA)
    values = PolicyWithValueHead(policy, value_model="adapter")
    reward = RewardModel.from_backbone(folder, lora=LORA)
    values.init_from_reward(reward)
    with torch.no_grad():
        cast(Any, reward.model).get_base_model().model.norm.weight.mul_(2)
    with pytest.raises(UserError, match=r"another base than the policy's, norm.weight differs; set value_init"):
        values.init_from_reward(reward)


def test_a_start_that_rewrites_the_base_is_no_change(folder: str, tmp_path: Path):
    lora = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa")
    model = PolicyWithValueHead(load_policy(folder, lora=lora))
    model.save_pretrained(tmp_path)
    loaded: Any = load_policy(tmp_path)
    ids = torch.tensor([[1, 2, 3]])
    expected = loaded(ids).logits.detach()
    add_frozen_copy(loaded, "default")  # as a reference
    with active_adapter(loaded, REFERENCE_ADAPTER):
        torch.testing.assert_close(loaded(ids).logits, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(loaded(ids).logits, expected, atol=0, rtol=0)


def test_a_base_that_an_adapter_s_start_has_rewritten_is_no_reference(folder: str, tmp_path: Path):
    lora = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa")
    given: dict[str, Any] = {"args": DPOConfig(**options(tmp_path)), "train_dataset": pairs(2), "peft_config": lora}
    with pytest.raises(UserError, match="init_lora_weights='pissa' changes the base's weights"):
        DPOTrainer(folder, **given)
    DPOTrainer(folder, ref_model=folder, **given)


def test_an_adapter_without_a_record_is_loaded_with_a_line(
    folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    load_policy(folder, lora=LORA).save_pretrained(str(tmp_path))  # by peft alone
    with caplog.at_level(logging.WARNING):
        load_policy(tmp_path)
    assert [record.message for record in caplog.records if BASE_FINGERPRINT in record.message] == [
        f"The adapter in {tmp_path} has no {BASE_FINGERPRINT}, so whether {folder} has the weights it was trained on "
        "is not checked."
    ]
    (tmp_path / BASE_FINGERPRINT).write_text("{")
    with pytest.raises(LoadError, match="can't be read"):
        load_policy(tmp_path)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_that_an_adapter_trains_are_its_own(tmp_path: Path, bias: Any):
    base, adapter, ids = (
        save_tiny(tmp_path / "base", attention_bias=True),
        tmp_path / "adapter",
        torch.tensor([[1, 2, 3]]),
    )
    model = load_policy(base, lora=LoraConfig(r=2, target_modules=["q_proj", "v_proj"], bias=bias))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 if weight.requires_grad else 0)
        PolicyModel(model).save_pretrained(adapter)
        assert torch.equal(load_policy(str(adapter))(ids).logits, model(ids).logits)
        other = AutoModelForCausalLM.from_pretrained(base)
        other.model.layers[0].mlp.up_proj.weight.add_(0.1)
    other.save_pretrained(base)
    with pytest.raises(UserError, match="was trained on a base with other weights"):
        load_policy(str(adapter))
