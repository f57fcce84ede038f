from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from hf_align.errors import UserError
from hf_align.models.loading import load_policy
from hf_align.models.reward import load_reward_model
from hf_align.planning.device import available_memory
from hf_align.planning.outline import loaded_bytes, outline
from hf_align.trainers.optimizers import optimizer_memory
from tests.tiny import save_tiny

LORA: dict[str, Any] = {"r": 4, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model", hidden_size=64)


def size(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize("reward", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_weights_are_those_of_the_real_model(tiny: str, reward: bool, lora: bool) -> None:
    config = LoraConfig(**LORA) if lora else None
    real = (load_reward_model if reward else load_policy)(tiny, lora=config)
    actual = outline(tiny, reward=reward, lora=LoraConfig(**LORA) if lora else None, dtype=torch.float32)
    assert actual.total == size(real.parameters())
    assert actual.trained == size(parameter for parameter in real.parameters() if parameter.requires_grad)
    assert all(parameter.is_meta for parameter in actual.model.parameters())
    assert loaded_bytes(actual.model) == sum(parameter.nbytes for parameter in real.parameters())
    plain = AutoModelForCausalLM.from_pretrained(tiny)
    assert actual.base_bytes >= 4 * size(plain.parameters())


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_quantised_weights_take_what_they_take(tiny: str, quantization: Any) -> None:
    real = load_policy(tiny, quantization=quantization)
    held = sum(parameter.nbytes for parameter in real.parameters())
    scales = 0
    for parameter in real.parameters():
        if (state := getattr(parameter, "quant_state", None)) is not None:
            inner = (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
            scales += sum(tensor.nbytes for tensor in inner)
    if quantization == "8bit":
        linear = [module for module in real.modules() if type(module).__name__ == "Linear8bitLt"]
        scales = sum(4 * module.out_features for module in linear)  # type: ignore[operator,misc]
    actual = outline(tiny, quantization=quantization, lora=LoraConfig(**LORA), dtype=torch.float32).base_bytes
    assert actual == pytest.approx(held + scales, rel=1e-3)


def test_states_of_optimizers_are_those_that_they_keep() -> None:
    weights = [torch.nn.Parameter(torch.ones(6, 5)), torch.nn.Parameter(torch.ones(7))]
    for name, kept in (("adamw_torch_fused", 2), ("adamw_torch", 2), ("sgd", 0)):
        made = {"sgd": torch.optim.SGD}.get(name, torch.optim.AdamW)(weights, lr=0.1)
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        made.step()
        state = [tensor for values in made.state.values() for tensor in values.values() if tensor is not None]
        held = sum(tensor.nbytes for tensor in state if tensor.ndim)
        assert optimizer_memory(name, weights, "cpu").state == held == 4 * 37 * kept
    assert optimizer_memory("adafactor", weights, "cpu").state == 4 * (6 + 5 + 7)
    large = [torch.nn.Parameter(torch.empty(1000, 1000, device="meta"))]
    eight = optimizer_memory("paged_adamw_8bit", large, "cuda")
    assert 2e6 < eight.state < 2.1e6 and "host" in eight.note
    assert (
        optimizer_memory("adamw_torch", large, "cuda").step == 4e6 == optimizer_memory("rmsprop", large, "cuda").state
    )
    assert optimizer_memory("unheard_of", large, "cuda").note == "unheard_of is counted as AdamW"


def test_what_is_free_is_named() -> None:
    where, free = available_memory()
    assert where
    assert free > 0


def test_layers_that_do_not_exist(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lora: Target modules"):
        outline(tiny, lora=LoraConfig(target_modules=["nothing"]))
    with pytest.raises(UserError, match="holds no model"):
        outline(str(tmp_path))
