"""A reference that follows its policy: weights by hand, and what the second adapter computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from hf_align.errors import UserError
from hf_align.layout.branches import build_branches
from hf_align.models.adapters import float32_trainable
from hf_align.models.loading import load_policy
from hf_align.models.moving_reference import MovingWeights
from hf_align.models.policy import PolicyModel
from hf_align.models.randomness import disable_dropout
from hf_align.models.reference import Reference
from tests.tiny import tiny_model

BATCH = build_branches([([1, 2, 3], [[4, 5], [6]])], pad_token_id=0)
LORA: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}


def logps(model: Any) -> Tensor:
    with torch.no_grad():
        return model(BATCH)


def moving(policy: PolicyModel, model: Any = None, *, new_adapter: bool = False) -> tuple[Reference, MovingWeights]:
    reference = Reference(
        policy, model, new_adapter=new_adapter, snapshot=True, place=lambda frozen: frozen, moves=True
    )
    assert reference.moving is not None
    return reference, reference.moving


def as_reference(reference: Reference, policy: PolicyModel) -> Tensor:
    with reference.scored_as(policy) as scorer:
        return logps(scorer)


def train(policy: nn.Module, seed: int) -> None:
    """Change whatever is trained."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))


def test_two_moves_by_hand():
    reference, policy = nn.Linear(2, 1), nn.Linear(2, 1)
    weights = MovingWeights(reference, policy, {"weight": "weight"})
    bias = reference.bias.clone()
    with torch.no_grad():
        reference.weight.copy_(torch.tensor([[1.0, 0.0]]))
        policy.weight.copy_(torch.tensor([[2.0, -1.0]]))
        weights.move(0.6)
        # .6 x 2 + .4 x 1 and .6 x -1 + .4 x 0
        torch.testing.assert_close(reference.weight, torch.tensor([[1.6, -0.6]]))
        policy.weight.copy_(torch.tensor([[0.0, 4.0]]))
        weights.move(0.6)
        # .6 x 0 + .4 x 1.6 and .6 x 4 + .4 x -.6
        torch.testing.assert_close(reference.weight, torch.tensor([[0.64, 2.16]]))
    assert policy.weight.tolist() == [[0.0, 4.0]]
    assert torch.equal(reference.bias, bias), "it isn't among the twins"


def test_it_moves_by_less_than_its_16_bits_resolve():
    reference, policy = nn.Linear(1, 1).bfloat16(), nn.Linear(1, 1)
    weights = MovingWeights(reference, policy, {"weight": "weight"})
    with torch.no_grad():
        reference.weight.fill_(1.0)
        policy.weight.fill_(1.001)  # the bfloat16 next to 1 is 1.0078
        for _ in range(3):
            weights.move(0.5)
    assert reference.weight.item() == pytest.approx(1.001 - 0.001 / 8, abs=1e-7)


KINDS: list[Any] = [
    pytest.param({}, id="plain"),
    pytest.param({"lora_dropout": 0.5}, id="dropout"),
    pytest.param({"use_rslora": True}, id="rslora"),
    pytest.param({"use_dora": True}, id="dora"),
    pytest.param({"modules_to_save": ["lm_head"]}, id="modules_to_save"),
    pytest.param({"trainable_token_indices": [4, 5]}, id="tokens"),
    pytest.param({"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, id="embeddings"),
]


@pytest.mark.parametrize("changes", KINDS)
def test_the_second_adapter_starts_as_the_base_and_averages_parameters(changes: dict[str, Any]):
    lora = LoraConfig(**{**LORA, **changes})

    def build() -> PolicyModel:
        torch.manual_seed(1)
        policy = PolicyModel(get_peft_model(tiny_model(tie_word_embeddings=False), lora))
        disable_dropout(policy)
        return policy.train()

    policy = build()
    names = [name for name, weight in policy.named_parameters() if weight.requires_grad]
    reference, weights = moving(policy, new_adapter=True)
    assert names == [name for name, weight in policy.named_parameters() if weight.requires_grad]
    base = PolicyModel(tiny_model(tie_word_embeddings=False))
    torch.testing.assert_close(as_reference(reference, policy), logps(base), atol=1e-5, rtol=0)
    averages = {name: weight.detach().double() for name, weight in policy.named_parameters() if name in names}
    for seed in (2, 3):
        train(policy, seed)
        weights.move(0.6)
        for name, weight in policy.named_parameters():
            if name in names:
                averages[name] = 0.6 * weight.detach().double() + 0.4 * averages[name]
    by_hand = build()
    with torch.no_grad():
        for name, weight in by_hand.named_parameters():
            if name in names:
                weight.copy_(averages[name])
    computed = as_reference(reference, policy)
    torch.testing.assert_close(computed, logps(by_hand), atol=1e-4, rtol=0)
    assert (computed - logps(base)).abs().max() > 1e-2 and (computed - logps(policy)).abs().max() > 1e-2
    weights.move(1.0)
    assert torch.equal(as_reference(reference, policy), logps(policy)), "alpha 1 is a copy, to the bit"


def test_the_product_s_distance_from_the_mean_of_products_is_of_second_order():
    policy = PolicyModel(get_peft_model(tiny_model(), LoraConfig(**LORA, init_lora_weights=False)))
    _, weights = moving(policy)
    layer = cast(Any, policy.model).model.model.layers[0].self_attn.q_proj

    def matrices(name: str) -> tuple[Tensor, Tensor]:
        return layer.lora_B[name].weight.detach().clone(), layer.lora_A[name].weight.detach().clone()

    train(policy, 2)
    (b, a), (ref_b, ref_a), alpha = matrices("default"), matrices("reference"), 0.6
    weights.move(alpha)
    moved_b, moved_a = matrices("reference")
    mean = alpha * b @ a + (1 - alpha) * ref_b @ ref_a
    torch.testing.assert_close(moved_b @ moved_a, mean - alpha * (1 - alpha) * (b - ref_b) @ (a - ref_a))
    assert not torch.allclose(moved_b @ moved_a, mean)


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_on_a_quantised_base(tiny_model_dir: str, quantization: Any):
    policy = PolicyModel(load_policy(tiny_model_dir, quantization=quantization, lora=LoraConfig(**LORA))).train()
    before = logps(policy)
    reference, weights = moving(policy, new_adapter=True)
    train(policy, 2)
    assert torch.equal(as_reference(reference, policy), before)
    weights.move(1.0)
    assert torch.equal(as_reference(reference, policy), logps(policy))
    assert (logps(policy) - before).abs().max() > 1e-2


@pytest.mark.parametrize("explicit", [True, False])
def test_full_weights_are_averaged_in_place_and_tied_ones_once(explicit: bool):
    policy = PolicyModel(tiny_model())
    cast(Any, policy.model).model.norm.requires_grad_(False)
    other = tiny_model(seed=5).bfloat16() if explicit else None
    start = {name: weight.detach().double() for name, weight in (other or policy.model).named_parameters()}
    if other is not None:
        other.model.norm.weight.data.fill_(2.0)  # not trained, and another one: averaged as the rest
        start["model.norm.weight"] = other.model.norm.weight.detach().double()
    float32_trainable(policy)
    reference, weights = moving(policy, other)
    module: Any = reference.module
    places = {name: weight.data_ptr() for name, weight in module.model.named_parameters()}
    train(policy, 2)
    weights.move(0.25)
    after = dict(module.model.named_parameters())
    assert {name: weight.data_ptr() for name, weight in after.items()} == places
    assert module.model.lm_head.weight is module.model.model.embed_tokens.weight
    for name, weight in policy.model.named_parameters():
        expected = 0.25 * weight.detach().double() + 0.75 * start[name]
        torch.testing.assert_close(after[name].detach().double(), expected, atol=1e-6, rtol=1e-6, msg=name)
    assert not any(weight.requires_grad for weight in module.parameters())


@pytest.mark.parametrize("kind", ["shape", "names", "adapter"])
def test_a_reference_of_another_kind_is_refused(kind: str):
    others = {
        "shape": lambda: tiny_model(intermediate_size=32),
        "names": lambda: tiny_model(num_hidden_layers=1),
        "adapter": lambda: get_peft_model(tiny_model(), LoraConfig(**LORA)),
    }
    with pytest.raises(UserError, match=r"sync_ref_model averages .* give a ref_model of the same architecture"):
        moving(PolicyModel(tiny_model()), others[kind]())


@pytest.mark.parametrize(
    ("start", "message"),
    [("pissa", r"changes the base's weights.*; leave init_lora_weights out"), (False, "starts the adapter at random")],
)
def test_a_new_adapter_that_is_not_the_base_is_refused(start: Any, message: str):
    policy = PolicyModel(get_peft_model(tiny_model(), LoraConfig(**LORA, init_lora_weights=start)))
    with pytest.raises(UserError, match=message):
        moving(policy, new_adapter=True)


def test_what_was_saved_comes_back_to_the_bit(tmp_path: Path):
    def build() -> tuple[PolicyModel, MovingWeights]:
        policy = PolicyModel(get_peft_model(tiny_model(), LoraConfig(**LORA)))
        return policy, moving(policy, new_adapter=True)[1]

    (policy, weights), (again, theirs) = build(), build()
    train(policy, 2)
    weights.move(0.6)
    file = tmp_path / "reference.safetensors"
    weights.save(file)
    theirs.load(file)
    ours = dict(policy.named_parameters())
    loaded = {name: weight for name, weight in again.named_parameters() if ".reference." in name}
    assert loaded and all(torch.equal(weight, ours[name]) for name, weight in loaded.items())
    full = PolicyModel(tiny_model())
    with pytest.raises(UserError, match="holds the reference of another run"):
        moving(full)[1].load(file)
    file.write_bytes(b"half")
    with pytest.raises(UserError, match="The reference can't be read from"):
        theirs.load(file)
