"""A model without dropout computes the same in train mode each time, and what it computes in evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoHaConfig, LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from hf_align.models.policy import PolicyModel
from hf_align.models.randomness import disable_dropout
from hf_align.models.value import PolicyWithValueHead
from tests.tiny import tiny_model

SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}
GPT = {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2}
MIXTURE = {**SIZES, "intermediate_size": 16, "num_key_value_heads": 2, "num_local_experts": 4}
# Each holds its probabilities in another way.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "modules": ("GPT2Config", GPT),
    "numbers of modules": ("GPTBigCodeConfig", GPT),
    "numbers with other names": ("Starcoder2Config", {**SIZES, "intermediate_size": 16, "num_key_value_heads": 2}),
    "numbers that are added to residuals": ("BloomConfig", {**SIZES, "n_layer": 2, "n_head": 2}),
    "the config, read in each pass": ("FalconConfig", SIZES),
    "the config, under its attention's names": ("GPTJConfig", {**GPT, "rotary_dim": 4}),
    "a config within the config": ("MptConfig", {"vocab_size": 64, "d_model": 16, "n_layers": 2, "n_heads": 2}),
    "layers left out": ("OPTConfig", {**SIZES, "ffn_dim": 16, "word_embed_proj_dim": 16, "layerdrop": 0.5}),
    "routers that jitter": ("MixtralConfig", MIXTURE),
    "routers that sample": ("PhimoeConfig", MIXTURE),
}
IDS = torch.arange(1, 25).view(2, 12)


def tiny(kind: str, settings: dict[str, Any]) -> PreTrainedModel:
    """A model with much dropout and jitter wherever its config has a place for them."""
    config: PreTrainedConfig = getattr(transformers, kind)(**settings)
    for each in (config, *[value for value in vars(config).values() if isinstance(value, PreTrainedConfig)]):
        for name, value in vars(each).items():
            if ("drop" in name or "jitter" in name) and not isinstance(value, bool | list):
                vars(each)[name] = 0.4  # some fields are declared as whole numbers
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("how", FAMILIES)
def test_without_dropout_passes_in_train_mode_agree_wherever_a_family_holds_its_probabilities(how: str, tmp_path: Path):
    model = tiny(*FAMILIES[how])
    model.train()
    assert not torch.equal(logits(model), logits(model)), "there is something to switch off"
    wrapped = PolicyModel(model)
    given = {name: value for name, value in model.config.to_dict().items() if "drop" in name}
    disable_dropout(wrapped)
    model.eval().train()
    first = logits(model)
    assert torch.equal(first, logits(model))
    torch.testing.assert_close(first, logits(model.eval()), atol=1e-5, rtol=1e-5)
    wrapped.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {name: saved[name] for name in given} == given, "a saved model has the dropout that it was loaded with"


class DropPath(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.share = 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (torch.rand(len(x), 1, 1) >= self.share) if self.training else x


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(lora_dropout=0.5, init_lora_weights=False),
        LoHaConfig(module_dropout=0.5, rank_dropout=0.5, init_weights=False),
    ],
)
def test_adapters_and_layers_of_others_drop_nothing_either(config: Any):
    config.target_modules = ["q_proj", "up_proj"]
    model = get_peft_model(tiny_model(), config)
    base: Any = model.get_base_model()
    base.lm_head = nn.Sequential(base.lm_head, DropPath())
    model.train()
    assert not torch.equal(logits(model), logits(model))
    disable_dropout(model)
    assert torch.equal(logits(model), logits(model))
    assert config.to_dict()[next(name for name in config.to_dict() if "dropout" in name)] == 0.5


def test_the_config_of_a_separate_value_model_is_saved_as_it_was_loaded(tmp_path: Path):
    model = PolicyWithValueHead(tiny_model(attention_dropout=0.25), value_model="separate")
    disable_dropout(model)
    model.save_pretrained(tmp_path)
    for folder in (tmp_path, tmp_path / "value_model"):
        assert json.loads((folder / "config.json").read_text())["attention_dropout"] == 0.25
    assert model.config.attention_dropout == 0
