"""Labels and pairs of the study's runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.study.objective import Objective, Outputs, correlation, in_chain, interpolated_labels
from benchmarks.study.settings import Settings, same
from hf_align.data.strengths import fit_strengths

RNG = np.random.default_rng(0)
TEXTS = [
    {"ids": [0] * int(size), "ratings": votes, "mean": float(np.mean(votes)), "domain": "movies"}
    for size, votes in zip(RNG.permutation(12) + 1, RNG.integers(-4, 5, size=(12, 15)).tolist(), strict=True)
]
INDEX = torch.arange(12).view(3, 4)


def brute_closure(values: list[float]) -> set[tuple[int, int]]:
    """Pairs whose order follows from a chain of comparisons by transitivity."""
    better = {(i, i + 1) if values[i] > values[i + 1] else (i + 1, i) for i in range(len(values) - 1)}
    while new := {(a, d) for a, b in better for c, d in better if b == c} - better:
        better |= new
    return {(min(pair), max(pair)) for pair in better}


def test_the_closure_of_a_chain_is_what_transitivity_implies():
    values = torch.from_numpy(RNG.permutation(40).reshape(5, 8)).float()
    label = ((values[:, :, None] - values[:, None]).sign() + 1) / 2
    closed = in_chain(label, closure=True)
    for row, order in enumerate(values.tolist()):
        assert set(map(tuple, closed[row].nonzero().tolist())) == brute_closure(order)
    assert in_chain(label, closure=False).sum() == 5 * 7


def test_interpolation_keeps_a_chain_s_labels_and_takes_the_others_from_strengths():
    values = torch.tensor([[5.0, 4.0, 1.0, 2.0]])
    label = ((values[:, :, None] - values[:, None]).sign() + 1) / 2
    made = interpolated_labels(label)[0]
    assert made.diagonal(1).tolist() == [1, 1, 0]
    strength = fit_strengths(4, [0, 1, 2], [1, 2, 3], [1.0, 1.0, 0.0])
    assert made[0, 2].item() == pytest.approx(1 / (1 + np.exp(strength[2] - strength[0])))
    torch.testing.assert_close(made + made.T, torch.ones(4, 4))


@pytest.mark.parametrize("labels", ["soft", "hard", "draw"])
def test_flips_and_planted_lengths_are_a_pair_s_own_whatever_its_order(labels: str):
    settings = Settings(labels=labels, flips=0.3, longer_wins=0.3)  # type: ignore[arg-type]
    objective = Objective(TEXTS, settings)
    objective.start_epoch()
    order = torch.tensor([[3, 0, 2, 1]])
    first, turned = objective.labels(torch.tensor([[0, 1, 2, 3]])), objective.labels(order)
    torch.testing.assert_close(turned[0], first[0][order[0]][:, order[0]])
    torch.testing.assert_close(first + first.transpose(1, 2), torch.ones_like(first))
    clean = Objective(TEXTS, replace(settings, flips=0.0, longer_wins=0.0))
    clean.votes = objective.votes
    every = torch.arange(12)[None]
    kept = ~(objective.flipped | objective.by_length)
    torch.testing.assert_close(objective.labels(every)[0][kept], clean.labels(every)[0][kept])
    flipped = objective.flipped
    torch.testing.assert_close(objective.labels(every)[0][flipped], 1 - clean.labels(every)[0][flipped])
    longer = (objective.lengths[:, None] > objective.lengths).float()[objective.by_length]
    assert torch.equal(objective.labels(every)[0][objective.by_length], longer) and len(longer)


def test_a_curriculum_starts_with_wide_gaps_and_ends_with_all_pairs():
    objective = Objective(TEXTS, Settings(curriculum=True))
    gaps = (objective.means[INDEX][:, :, None] - objective.means[INDEX][:, None]).abs()
    shares = []
    for progress, least in ((0.0, 2.0), (0.5, 1.0), (0.99, 0.0)):
        compared = objective.compared(INDEX, objective.labels(INDEX), progress)
        shares.append(int(compared.sum()))
        assert not compared.any() or (gaps[compared] > least).all() or shares[-1] == 18
    assert shares[-1] == 18


def test_the_second_head_is_pushed_towards_length_and_the_first_away_from_it():
    objective = Objective(TEXTS, Settings(labels="hard", length="head"))
    rewards, second = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    cosine = torch.tensor(0.25)
    loss = objective.loss(INDEX, Outputs(rewards, {}, by_length=second, overlap=cosine), 0.0)
    label = objective.labels(INDEX)
    fit = objective.preference_loss(INDEX, rewards + second, label, torch.ones_like(label).bool().triu(1))
    centred = [(part - part.mean(1, keepdim=True)).flatten() for part in (objective.lengths[INDEX], rewards, second)]
    expected = fit + correlation(centred[1], centred[0]).abs() - correlation(centred[2], centred[0]) + cosine
    torch.testing.assert_close(loss, expected)
    assert correlation(centred[1], centred[0]).item() == pytest.approx(
        np.corrcoef(centred[1].detach().numpy(), centred[0].numpy())[0, 1], abs=1e-5
    )


def test_a_stored_run_is_found_again_although_a_setting_was_added_since():
    stored = Settings(epochs=3).to_json()
    del stored["contrastive"]
    assert same(stored, Settings(epochs=3)) and not same(stored, Settings(epochs=3, contrastive=0.1))
