import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from transformers import AutoModelForCausalLM

from hf_align.errors import UserError
from hf_align.models.loading import load_policy
from hf_align.models.reward import load_reward_model
from hf_align.planning import memory
from hf_align.planning.memory import activation_bytes, available_memory, cache_bytes, outline, training_bytes
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
    plain = AutoModelForCausalLM.from_pretrained(tiny)
    assert actual.base_bytes >= 4 * size(plain.parameters())


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_quantised_weights_take_what_they_take(tiny: str, quantization: Any) -> None:
    real = load_policy(tiny, quantization=quantization)
    held = sum(parameter.nbytes for parameter in real.parameters())
    actual = outline(tiny, quantization=quantization, lora=LoraConfig(**LORA), dtype=torch.float32).base_bytes
    assert held <= actual <= 1.1 * held


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_those_that_autograd_keeps(tiny: str, checkpointing: bool) -> None:
    model: Any = load_policy(tiny, lora=LoraConfig(**LORA))
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[Any, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage, storage.nbytes())
        return tensor

    rows, tokens = 3, 50
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        mask = torch.ones(rows, 1, tokens, tokens, dtype=torch.bool)  # as the trainers' branches have it
        ids = torch.zeros(rows, tokens, dtype=torch.long)
        output = model.get_base_model().model(ids, attention_mask=mask, position_ids=ids, use_cache=False)
    held = sum(nbytes for _, nbytes in kept.values())
    del output
    gc.collect()
    config = model.config
    traced = outline(tiny, lora=LoraConfig(**LORA), dtype=torch.float32).model
    actual = activation_bytes(traced, rows, tokens, checkpointing=checkpointing)
    actual -= memory.CHUNK_BYTES * config.vocab_size
    if checkpointing:  # one of the two layers is recomputed in the backward pass
        assert held < actual
        traced = outline(tiny, lora=LoraConfig(**LORA), dtype=torch.float32).model
        layer = activation_bytes(traced, rows, tokens, checkpointing=False)
        assert actual - held == pytest.approx((layer - memory.CHUNK_BYTES * config.vocab_size) / 2, rel=0.15)
    else:
        assert actual == pytest.approx(held, rel=0.15)


def test_optimizers_and_caches(tiny: str) -> None:
    for dtype, copy in ((torch.float32, 0), (torch.bfloat16, 2)):
        assert training_bytes(10, "adamw_torch_fused", dtype) == 160 + 10 * copy
        assert training_bytes(10, "adamw_bnb_8bit", dtype) == 100 + 10 * copy
        assert training_bytes(10, "sgd", dtype) == 80 + 10 * copy
    config = outline(tiny).text_config
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert cache_bytes(config, 5, 7, torch.float32) == 35 * per_token == 2 * cache_bytes(config, 5, 7, torch.float16)


def test_what_is_free_is_named() -> None:
    where, free = available_memory()
    assert where
    assert free > 0


def test_layers_that_do_not_exist(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lora: Target modules"):
        outline(tiny, lora=LoraConfig(target_modules=["nothing"]))
    with pytest.raises(UserError, match="holds no model"):
        outline(str(tmp_path))
