"""Combinations of scores that are fitted on preferences, against scipy's optimum and by what they must learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize

from hf_align.errors import UserError
from hf_align.models.fitted_aggregation import DynamicSelector, Preferences, Stacking


def pairs(count: int) -> Preferences:
    """`count` prompts with two responses, the first of which is better."""
    return Preferences.of([{"prompt_ids": [n], "response_ids": [[1], [2]]} for n in range(count)])


def test_preferences_are_all_pairs_of_each_row_and_a_ranking_weighs_as_one_row():
    rows = [
        {"prompt_ids": [1], "response_ids": [[1], [2]]},
        {"prompt_ids": [2], "response_ids": [[1], [2]], "label": 0.3, "weight": 2.0},
        {"prompt_ids": [1], "response_ids": [[3], [4], [5], [6]], "ranks": [0, 1, -1, -1]},
        {"prompt_ids": [3], "response_ids": [[1], [2]], "ranks": [0, 1], "ratings": [[3.0, 1.0], [1.0, 0.0]]},
    ]
    read = Preferences.of(rows)
    triples = list(zip(read.first.tolist(), read.second.tolist(), read.label.tolist(), strict=True))
    assert triples == [
        *((0, 1, 1.0), (2, 3, 0.3), (4, 5, 1.0), (4, 6, 1.0), (4, 7, 1.0), (5, 6, 1.0), (5, 7, 1.0)),
        (8, 9, 0.875),
    ]
    assert read.weight.tolist() == [1.0, 2.0, *[0.2] * 5, 1.0]
    assert read.prompt.tolist() == [0, 1, 0, 0, 0, 0, 0, 2]
    with pytest.raises(UserError, match="in no row is one response preferred"):
        Preferences.of([{"prompt_ids": [1], "response_ids": [[1], [2]], "label": 0.5}])


def test_stacking_maximises_the_penalised_likelihood_of_the_preferences():
    draws = np.random.default_rng(0)
    quality = draws.normal(size=60)
    scores = np.stack([3 * quality + draws.normal(size=60), quality + 5, draws.normal(size=60)])  # good, better, noise
    labels = draws.uniform(size=30)
    rows = [{"prompt_ids": [n], "response_ids": [[1], [2]], "label": labels[n], "weight": n % 3 + 1} for n in range(30)]
    stacking = Stacking(3)
    with pytest.raises(UserError, match=r"isn't fitted; call fit\(dataset\)"):
        stacking(torch.tensor(scores))
    stacking.fit(torch.tensor(scores), Preferences.of(rows), penalty=0.5)

    def objective(weight: np.ndarray) -> float:
        odds = weight @ (scores[:, ::2] - scores[:, 1::2])
        losses = labels * np.logaddexp(0, -odds) + (1 - labels) * np.logaddexp(0, odds)
        return (losses * (np.arange(30) % 3 + 1)).sum() + 0.25 * ((weight * scores.std(1)) ** 2).sum()

    best = optimize.minimize(objective, np.zeros(3), method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(stacking.weight, best.x, atol=1e-5)
    rewards = stacking(torch.tensor(scores))
    assert abs(rewards.mean().item()) < 1e-6  # the intercept
    again = Stacking(3)
    again.load_state_dict(stacking.state_dict())
    assert torch.equal(again(torch.tensor(scores)), rewards)
    with pytest.raises(UserError, match="member 1 gives all held-out responses one score"):
        stacking.fit(torch.tensor(scores) * torch.tensor([[1.0], [0.0], [1.0]]), Preferences.of(rows))


def test_stacking_is_finite_on_pairs_that_scores_separate():
    stacking = Stacking(1).fit(torch.tensor([[100.0, -100.0] * 5]), pairs(5))
    assert torch.isfinite(stacking.weight).all() and stacking.weight[0] > 0


def test_a_selector_learns_which_member_to_trust_for_which_prompt():
    torch.manual_seed(0)
    count, size = 120, 4
    kinds = torch.arange(count) % 2  # member 0 is right on even prompts, member 1 on odd ones
    states = torch.randn(count, size)
    states[:, 0] = 100.0 + kinds
    right = torch.tensor([[1.0, -1.0]]).repeat(count, 1)
    scores = torch.stack([torch.where((kinds == n)[:, None], right, -0.8 * right).flatten() for n in (0, 1)])
    scores = scores + 0.1 * torch.randn_like(scores)
    of_responses = states.repeat_interleave(2, 0)
    preferences = pairs(count)
    selector = DynamicSelector(size, 2)
    with pytest.raises(UserError, match="isn't fitted"):
        selector(scores, of_responses)
    assert torch.equal(selector.shares(states), torch.full((count, 2), 0.5))
    state = torch.random.get_rng_state()
    selector.fit(scores, preferences, of_responses)
    assert torch.equal(torch.random.get_rng_state(), state)
    shares = selector.shares(states)
    torch.testing.assert_close(shares.sum(1), torch.ones(count))
    assert bool((shares.argmax(1) == kinds).float().mean() > 0.95)
    rewards = selector(scores, of_responses)
    torch.testing.assert_close(rewards, torch.einsum("mr,rm->r", scores, shares.repeat_interleave(2, 0)))
    assert preferences.loss(selector.log_odds * rewards) < preferences.loss(selector.log_odds * scores.mean(0))
    assert not any(parameter.requires_grad for parameter in selector.parameters())
    again = DynamicSelector(size, 2, seed=5)
    again.load_state_dict(selector.state_dict())
    assert torch.equal(again(scores, of_responses), rewards)
    twin = DynamicSelector(size, 2).fit(scores, preferences, of_responses)
    assert torch.equal(twin(scores, of_responses), rewards)
    with pytest.raises(UserError, match="needs at least 10"):
        selector.fit(scores[:, :18], pairs(9), of_responses[:18])


def test_a_selector_without_anything_to_learn_stays_the_mean():
    torch.manual_seed(0)
    score = torch.randn(40)
    scores = score.repeat(3, 1)
    selector = DynamicSelector(3, 3).fit(scores, pairs(20), torch.randn(40, 3))
    torch.testing.assert_close(selector(scores, torch.randn(40, 3)), score)
