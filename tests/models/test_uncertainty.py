"""Measures of uncertainty against numpy and scipy, and dropout in scoring against weights dropped by hand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from scipy import special, stats

from hf_align.errors import UserError
from hf_align.models.randomness import disable_dropout
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.uncertainty import deviation, dropout_scores, mc_dropout, preference_entropy, variation_ratio

PROMPTS, RESPONSES = ["Say it:"] * 3 + ["Go"], [" a joy", " no", " on and on", " away"]


def reward_model(folder: str, **config: Any) -> RewardModel:
    """A reward model with an adapter that changes its scores."""
    torch.manual_seed(0)
    settings = {"r": 2, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False, **config}
    model = RewardModel.from_backbone(folder, lora=LoraConfig(**settings))
    disable_dropout(model)
    return model.eval()


def test_deviation_entropy_and_variation_ratio_agree_with_numpy_and_scipy():
    draws = np.random.default_rng(0)
    scores, log_odds = draws.normal(size=(5, 9)), draws.uniform(0.5, 3, 5)
    tensor = torch.tensor(scores)
    np.testing.assert_allclose(deviation(tensor), scores.std(0), rtol=1e-12)
    p = special.expit(scores * log_odds[:, None]).mean(0)
    np.testing.assert_allclose(preference_entropy(tensor, log_odds.tolist()), stats.entropy([p, 1 - p]), rtol=1e-12)
    majority = stats.mode((scores > 0).astype(int), axis=0).count / 5
    np.testing.assert_allclose(variation_ratio(tensor), 1 - majority, rtol=1e-12)


def test_measures_are_finite_where_a_ratio_to_the_mean_is_not():
    scores = torch.tensor([[1.0, 0.0, 200.0, -1.0], [-1.0, 0.0, 200.0, 0.0]])  # means 0, 0, 200, -.5
    assert variation_ratio(scores).tolist() == [0.5, 0.5, 0.0, 0.25]
    log2 = np.log(2)
    np.testing.assert_allclose(preference_entropy(scores, [1.0, 1.0])[:3], [log2, log2, 0], atol=1e-6)
    assert deviation(scores[:1]).tolist() == [0.0] * 4  # one member


@pytest.mark.parametrize("head", ["linear", "mlp", "attention"])
def test_what_a_head_reads_is_dropped(head: str, tiny_model_dir: str):
    torch.manual_seed(0)
    model = RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(head=head)).eval()  # type: ignore[arg-type]
    before = model.score(PROMPTS, RESPONSES)
    kept = (torch.rand(32, generator=torch.Generator().manual_seed(3)) >= 0.4) / 0.6
    with mc_dropout(model, 0.4, generator=torch.Generator().manual_seed(3)):
        dropped = model.score(PROMPTS, RESPONSES)
    twin = copy.deepcopy(model)
    first = next(m for m in getattr(twin.head, "reward", twin.head).modules() if isinstance(m, torch.nn.Linear))
    first.weight.data *= kept
    torch.testing.assert_close(torch.tensor(dropped), torch.tensor(twin.score(PROMPTS, RESPONSES)))
    assert model.score(PROMPTS, RESPONSES) == before


def test_what_adapters_read_is_dropped_with_acceleration_on(tiny_model_dir: str):
    model = reward_model(tiny_model_dir)
    generator = torch.Generator().manual_seed(0)
    twin = copy.deepcopy(model)
    for name, module in twin.named_modules():
        if name.endswith("lora_A.default"):
            module.weight.data *= (torch.rand(module.in_features, generator=generator) >= 0.3) / 0.7  # type: ignore[operator,arg-type]
    twin.head.modules_to_save["default"].weight.data *= (torch.rand(32, generator=generator) >= 0.3) / 0.7  # type: ignore[index,operator]
    with mc_dropout(model, 0.3):
        dropped = model.score(PROMPTS, RESPONSES)
    torch.testing.assert_close(torch.tensor(dropped), torch.tensor(twin.score(PROMPTS, RESPONSES)))
    plain = model.score(PROMPTS, RESPONSES)
    with mc_dropout(model, 0.0):
        torch.testing.assert_close(torch.tensor(model.score(PROMPTS, RESPONSES)), torch.tensor(plain))


@pytest.mark.parametrize("config", [{}, {"lora_dropout": 0.5}, {"use_dora": True}])
def test_mc_dropout_varies_and_evaluation_does_not(config: dict[str, Any], tiny_model_dir: str):
    model = reward_model(tiny_model_dir, **config)
    weights, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    before = model.score(PROMPTS, RESPONSES)
    scores = dropout_scores(model, lambda: model.score(PROMPTS, RESPONSES), passes=2)
    assert scores.shape == (2, 4) and bool((deviation(scores) > 0).all())
    assert torch.equal(scores, dropout_scores(model, lambda: model.score(PROMPTS, RESPONSES), passes=2))
    other = dropout_scores(model, lambda: model.score(PROMPTS, RESPONSES), passes=2, seed=1)
    assert not torch.equal(scores, other)
    assert model.score(PROMPTS, RESPONSES) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules()) and "forward" not in vars(model.head)


def test_a_pass_is_one_network_whatever_the_batches(tiny_model_dir: str):
    model = reward_model(tiny_model_dir)
    together = dropout_scores(model, lambda: model.score(PROMPTS, RESPONSES), passes=2)
    alone = dropout_scores(
        model, lambda: [model.score([p], [r])[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)], passes=2
    )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    before = model.score(PROMPTS, RESPONSES)
    with pytest.raises(ZeroDivisionError), mc_dropout(model):
        _ = 1 / 0
    assert model.score(PROMPTS, RESPONSES) == before  # after an error, too


def test_a_probability_out_of_range_and_a_module_without_a_reward_head_are_refused():
    with pytest.raises(UserError, match="below 1"), mc_dropout(torch.nn.Linear(1, 1), 1.0):
        pass
    with pytest.raises(UserError, match="give a RewardModel"), mc_dropout(torch.nn.Linear(1, 1)):
        pass
    with pytest.raises(UserError, match="at least 2"):
        dropout_scores(torch.nn.Linear(1, 1), list, passes=1)
