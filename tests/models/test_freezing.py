"""Frozen first layers: no gradient reaches them or what feeds them, with and without LoRA."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType

from hf_align.errors import UserError
from hf_align.models.adapters import add_lora
from hf_align.models.classifier import classifier_class
from hf_align.models.freezing import adapter_above, decoder_layers, freeze_layers
from hf_align.planning.outline import outline
from tests.families import FAMILIES

IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
FED = {  # what is before the first layer
    "llama": ["model.embed_tokens"],
    "gpt2": ["transformer.wte", "transformer.wpe"],
    "opt": ["model.decoder.embed_tokens", "model.decoder.embed_positions", "model.decoder.project_in"],
    "bloom": ["transformer.word_embeddings", "transformer.word_embeddings_layernorm"],
    "mamba": ["backbone.embeddings"],
    "modernbert-decoder": ["model.embeddings"],
    "qwen3_moe": ["model.embed_tokens"],
}


def make(family: str) -> Any:
    config = FAMILIES[family].make_config()
    config.num_labels = 1
    torch.manual_seed(0)
    return classifier_class(config)._from_config(config, dtype=torch.float32).train()


@pytest.mark.parametrize("family", FED)
def test_only_what_follows_the_frozen_layers_gets_gradients(family: str):
    model = make(family)
    freeze_layers(model, 1)
    model(input_ids=IDS, use_cache=False).logits.sum().backward()
    layers = decoder_layers(model)
    place = next(name for name, module in model.named_modules() if module is layers)
    below = (f"{place}.0.", *(f"{name}." for name in FED[family]))
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith(below)), name
        assert parameter.grad is None or parameter.requires_grad
    assert next(layers[1].parameters()).grad is not None


@pytest.mark.parametrize("excluded", [None, ["v_proj"], r".*\.v_proj"])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj", "embed_tokens"]])
def test_an_adapter_is_made_above_the_frozen_layers_only(targets: str | list[str], excluded: str | list[str] | None):
    model = make("llama")
    given = LoraConfig(target_modules=targets, exclude_modules=excluded)
    before = given.to_dict()
    config = adapter_above(given, model, 1)
    assert given.to_dict() == before
    adapted = add_lora(model, config, TaskType.SEQ_CLS)
    freeze_layers(adapted, 1)
    names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert all(".layers.1." in name or ".score." in name for name in names)
    assert not any("lora_" in name and ".layers.1." not in name for name, _ in adapted.named_parameters())
    assert any("q_proj" in name for name in names) and any("v_proj" in name for name in names) == (excluded is None)


def test_an_adapter_that_frozen_layers_already_have_stays_in_use_untrained(caplog: pytest.LogCaptureFixture):
    adapted = add_lora(
        make("llama"), LoraConfig(target_modules="all-linear", init_lora_weights=False), TaskType.SEQ_CLS
    )
    before = adapted(input_ids=IDS).logits
    freeze_layers(adapted, 1)
    assert "the adapter also changes layers among these, or the embeddings; there it stays in use" in caplog.text
    torch.testing.assert_close(adapted(input_ids=IDS).logits, before, atol=0, rtol=0)
    names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert names and all(".layers.1." in name or ".score." in name for name in names)


def test_frozen_layers_compute_in_the_precision_of_trained_weights():
    model = make("llama").to(torch.bfloat16)
    freeze_layers(model, 1)
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.float32}


def test_a_plan_counts_frozen_weights_and_the_activations_that_they_save(tiny_model_dir: str):
    lora = LoraConfig(target_modules="all-linear")
    for adapter in (lora, None):
        whole = outline(tiny_model_dir, reward=True, lora=adapter)
        half = outline(tiny_model_dir, reward=True, lora=adapter, frozen_layers=1)
        assert whole.trained > 1.9 * half.trained - 200


def test_more_layers_than_there_are_and_adapters_on_none_are_refused():
    with pytest.raises(UserError, match="freeze_layers is 3, and the model has 2 layers"):
        freeze_layers(make("llama"), 3)
    with pytest.raises(UserError, match=r"freeze_layers is 2, all of .* so there is none for an adapter"):
        adapter_above(LoraConfig(target_modules="all-linear"), make("llama"), 2)
    model = make("llama")
    freeze_layers(model, 2)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["model.norm.weight", "score.weight"]
