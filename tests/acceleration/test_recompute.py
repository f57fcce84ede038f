"""Selective recompute changes only the tensors kept between the passes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, PreTrainedConfig, Qwen2Config, Qwen3MoeConfig

from hf_align.acceleration.recompute import enable_selective_recompute, recompute_cheap
from hf_align.errors import UserError
from hf_align.layout.branches import Branches, build_branches
from hf_align.models.adapters import VALUE_ADAPTER, active_adapter
from hf_align.models.loading import load_policy
from hf_align.models.policy import PolicyModel
from hf_align.models.reward import RewardModel
from hf_align.models.value import PolicyWithValueHead
from tests.tiny import save_tiny

TINY: dict[str, Any] = {
    "vocab_size": 260,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("tiny"), hidden_size=64, intermediate_size=128)


def batch() -> Branches:
    documents = [
        (list(range(10 + n, 40 + n)), [list(range(50, 64 + n)), list(range(70, 80 + 2 * n))]) for n in range(3)
    ]
    return build_branches(documents, pad_token_id=0)


def random_lora() -> LoraConfig:
    return LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False)


def numbers(model: nn.Module, branches: Branches) -> Tensor:
    result = model(branches)
    if isinstance(result, dict):
        return result["logps"].sum() + result["values"].square().sum()
    return result.square().sum()


def bytes_kept(function: Callable[[], object]) -> int:
    """Bytes allocated while `function` runs and not freed while its result is alive."""
    gc.collect()  # garbage of earlier tests would be freed, and counted, while it runs
    with torch.profiler.profile(profile_memory=True) as profile:
        result = function()
    del result
    return sum(event.self_cpu_memory_usage for event in profile.key_averages())


def gradients(model: nn.Module, bf16: bool = False) -> dict[str, Tensor]:
    model.train()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = numbers(model, batch())
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same_gradients(model: nn.Module, bf16: bool = False) -> None:
    """Selective recompute gives bitwise equal gradients."""
    plain = gradients(model, bf16)
    enable_selective_recompute(model)
    for name, gradient in gradients(model, bf16).items():
        assert torch.equal(gradient, plain.pop(name)), name
    assert not plain


KINDS: dict[str, Callable[..., nn.Module]] = {
    "policy": lambda folder, **kw: PolicyModel(load_policy(folder, **kw)),
    "reward": lambda folder, **kw: RewardModel.from_backbone(folder, **kw),
    "shared value": lambda folder, **kw: with_value(folder, "shared", **kw),
    "value adapter": lambda folder, **kw: with_value(folder, "adapter", **kw),
    "separate value": lambda folder, **kw: with_value(folder, "separate", **kw),
}


def with_value(folder: str, kind: str, **kwargs: object) -> PolicyWithValueHead:
    model = PolicyWithValueHead(load_policy(folder, **kwargs), value_model=kind)  # type: ignore[arg-type]
    for parameter in model.value_parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize(
    ("kind", "bf16"),
    [
        pytest.param(kind, bf16, marks=pytest.mark.slow if (number + bf16) % 2 else ())
        for number, kind in enumerate(KINDS)
        for bf16 in (False, True)
    ],
)
def test_gradients_are_the_same_to_the_last_bit(folder: str, kind: str, bf16: bool):
    torch.manual_seed(0)
    same_gradients(KINDS[kind](folder, lora=random_lora()), bf16)


@pytest.mark.parametrize("kind", ["policy", "reward", "shared value", "separate value"])
def test_full_fine_tuning_too(folder: str, kind: str):
    same_gradients(KINDS[kind](folder))


@pytest.mark.parametrize(
    ("quantization", "bf16"),
    [
        *(("8bit", False), ("4bit", True)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("8bit", True), ("4bit", False))),
    ],
)
def test_on_quantised_weights(folder: str, quantization: str, bf16: bool):
    torch.manual_seed(0)
    same_gradients(KINDS["policy"](folder, lora=random_lora(), quantization=quantization), bf16)


def test_a_frozen_base_in_bfloat16(folder: str):
    torch.manual_seed(0)
    same_gradients(KINDS["policy"](folder, lora=random_lora(), dtype=torch.bfloat16), bf16=True)


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**{**TINY, "head_dim": 16, "attn_implementation": "eager"}),
        GPT2Config(vocab_size=260, n_embd=64, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
        Qwen2Config(**TINY),
        Qwen3MoeConfig(**{**TINY, "head_dim": 16}, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2),
    ],
    ids=["gemma2 eager", "gpt2", "qwen2", "qwen3 moe"],
)
def test_other_architectures(config: PreTrainedConfig):
    torch.manual_seed(0)
    same_gradients(PolicyModel(AutoModelForCausalLM.from_config(config)))


def test_dropout_is_not_drawn_again():
    torch.manual_seed(0)
    model = PolicyModel(AutoModelForCausalLM.from_config(GPT2Config(vocab_size=260, n_embd=64, n_layer=2, n_head=4)))
    torch.manual_seed(1)
    plain = gradients(model)
    enable_selective_recompute(model)
    torch.manual_seed(1)
    assert all(torch.equal(gradient, plain[name]) for name, gradient in gradients(model).items())


def test_another_adapter_may_be_active_in_the_backward_pass(folder: str):
    torch.manual_seed(0)
    model = with_value(folder, "adapter", lora=random_lora())
    plain = gradients(model)
    enable_selective_recompute(model)
    model.zero_grad()
    loss = numbers(model, batch())
    for adapter in (None, VALUE_ADAPTER):
        with active_adapter(model, adapter):
            loss.backward(retain_graph=adapter is None)
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, 2 * plain[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("lora", [True, False])
def test_about_half_of_a_layers_activations_are_kept(folder: str, lora: bool):
    model = KINDS["policy"](folder, lora=random_lora() if lora else None).train()
    kept = []
    for selective in (False, True):
        if selective:
            enable_selective_recompute(model)
        kept.append(bytes_kept(lambda: numbers(model, batch())))
    assert kept[1] < 0.62 * kept[0], kept


def test_a_cast_to_fewer_bits_is_kept_rather_than_what_was_cast():
    x, weight = torch.randn(400, 300), torch.randn(300, 300, requires_grad=True)
    kept = bytes_kept(lambda: recompute_cheap(lambda x: (x @ weight).bfloat16().square().sum(), x))
    assert 2 * x.numel() <= kept < 3 * x.numel(), "2 bytes a number in bfloat16, 4 in float32"


def test_the_backward_pass_frees_everything(folder: str):
    model = KINDS["policy"](folder, lora=random_lora()).train()
    enable_selective_recompute(model)
    gradients(model)
    assert bytes_kept(lambda: numbers(model, batch()).backward()) < 4096, "a cycle, or the last layer's results, stay"


def test_evaluation_and_passes_without_gradients_are_untouched(folder: str):
    model = KINDS["policy"](folder)
    enable_selective_recompute(model)
    expected = numbers(model.eval(), batch())
    with torch.no_grad():
        torch.testing.assert_close(numbers(model.train(), batch()), expected.detach(), atol=0, rtol=0)
    cast(Any, model.model).activation_checkpointing_disable()
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_what_is_changed_in_place_is_not_recomputed_wrongly():
    x = torch.randn(4, 300, requires_grad=True)

    def overwritten(x: Tensor) -> Tensor:
        y = x.sigmoid()
        z = y.detach().square()
        y.detach().zero_()  # z was made of the old y, which is itself a recipe
        return (x * z).sum() + (x * y.detach()).sum()

    recompute_cheap(overwritten, x).backward()
    torch.testing.assert_close(x.grad, x.detach().sigmoid().square())


def test_an_input_changed_in_place_is_reported():
    x, y = torch.randn(4, 300, requires_grad=True), torch.randn(4, 300)
    loss = recompute_cheap(lambda x, y: (x * y.sin()).sum(), x, y)
    y.add_(1)
    with pytest.raises(RuntimeError, match="in place"):
        loss.backward()


def test_a_model_without_decoder_layers_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="Linear has none"):
        enable_selective_recompute(nn.Linear(2, 2))
