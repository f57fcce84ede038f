"""Plackett-Luce compared with a product over places, all orders written out, and Bradley-Terry."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_align.errors import UserError
from hf_align.losses import bradley_terry_loss, plackett_luce_loss
from hf_align.losses.listwise import MAX_TIED

REWARDS = torch.tensor([1.3, -0.4, 2.1, 0.2, -1.7], dtype=torch.float64)


def probability(rewards: list[float], order: tuple[int, ...]) -> float:
    """P(order) of all responses, best first: each place by a softmax over those that are left."""
    product, left = 1.0, set(range(len(rewards)))
    for i in order:
        product *= math.exp(rewards[i]) / sum(math.exp(rewards[j]) for j in left)
        left.remove(i)
    return product


def by_permutations(rewards: list[float], ranks: list[int]) -> float:
    """-log of what a (partial) ranking's orders have as probability together: all orders of all K responses."""
    total = 0.0
    ranked = sorted((i for i, rank in enumerate(ranks) if rank >= 0), key=lambda i: ranks[i])
    for order in itertools.permutations(range(len(rewards))):
        if list(order[: len(ranked)]) == ranked:
            total += probability(rewards, order)
    return -math.log(total)


def orders_of(ranks: list[int]) -> list[list[int]]:
    """The rankings without ties that agree with the ranks."""
    ranked = [i for i, rank in enumerate(ranks) if rank >= 0]
    orders = []
    for order in itertools.permutations(ranked):
        places = [ranks[i] for i in order]
        if places == sorted(places):
            orders.append([order.index(i) if i in ranked else -1 for i in range(len(ranks))])
    return orders


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_full_and_partial_rankings_equal_brute_force_over_permutations(k: int) -> None:
    rewards = REWARDS[:k]
    assert sum(probability(rewards.tolist(), order) for order in itertools.permutations(range(k))) == pytest.approx(1.0)
    rankings = list(itertools.islice(itertools.permutations(range(k)), 0, None, 5 if k == 5 else 1))
    partial = [[rank if rank < top else -1 for rank in ranking] for ranking in rankings for top in range(1, k + 1)]
    losses = plackett_luce_loss(rewards.expand(len(partial), k), torch.tensor(partial))
    assert losses.tolist() == pytest.approx([by_permutations(rewards.tolist(), ranks) for ranks in partial])


def test_a_ranking_by_hand() -> None:
    # r = 0, log 2, log 3; the second is best, then the first: 2 / 6 * 1 / 4
    rewards = torch.tensor([[0.0, math.log(2.0), math.log(3.0)]])
    for ranks in ([1, 0, 2], [1, 0, -1], [7, 3, 9]):
        loss = plackett_luce_loss(rewards, torch.tensor([ranks]))
        assert loss.item() == pytest.approx(math.log(12.0), abs=1e-6)
    best_only = plackett_luce_loss(rewards, torch.tensor([[-1, 0, -1]]))
    assert best_only.item() == pytest.approx(math.log(3.0), abs=1e-6)


def test_two_responses_are_bradley_terry_and_a_tie_is_the_label_one_half() -> None:
    rewards = torch.tensor([[2.0, -1.0], [0.5, 1.5], [-3.0, 3.0]])
    expected = bradley_terry_loss(rewards[:, 0], rewards[:, 1])
    torch.testing.assert_close(plackett_luce_loss(rewards, torch.tensor([[0, 1]]).expand(3, 2)), expected)
    torch.testing.assert_close(plackett_luce_loss(rewards, torch.tensor([[0, -1]]).expand(3, 2)), expected)
    torch.testing.assert_close(
        plackett_luce_loss(rewards, torch.zeros(3, 2, dtype=torch.long), ties="average"),
        bradley_terry_loss(rewards[:, 0], rewards[:, 1], label=torch.full((3,), 0.5)),
    )


def test_ties_are_the_mean_over_the_orders_of_the_tied() -> None:
    rows = [[0, 0, 1, 2, -1], [1, 0, 1, 1, 2], [0, 0, 1, 1, 2], [0, 0, 0, 0, 0], [2, 0, 0, -1, -1], [4, 3, 2, 1, 0]]
    losses = plackett_luce_loss(REWARDS.expand(len(rows), 5), torch.tensor(rows), ties="average")
    expected = []
    for ranks in rows:
        each = [by_permutations(REWARDS.tolist(), order) for order in orders_of(ranks)]
        expected.append(sum(each) / len(each))
    assert losses.tolist() == pytest.approx(expected)


def test_rows_of_different_numbers_of_responses_count_as_alone() -> None:
    nan = math.nan
    rewards = torch.tensor([[0.3, 1.1, nan, nan], [2.0, 0.1, -0.4, 0.9], [nan, 0.5, nan, -1.0]], requires_grad=True)
    ranks = torch.tensor([[1, 0, 0, 0], [1, 1, -1, 0], [5, 1, 0, 0]])
    mask = ~rewards.isnan()
    losses = plackett_luce_loss(rewards, ranks, mask=mask, ties="average")
    for row in range(3):
        alone = plackett_luce_loss(rewards[row, mask[row]][None], ranks[row, mask[row]][None], ties="average")
        torch.testing.assert_close(losses[row], alone[0])
    (gradient,) = torch.autograd.grad(losses.sum(), rewards)
    assert gradient.isfinite().all()
    assert (gradient[~mask] == 0).all()


def test_rows_without_an_order_have_neither_loss_nor_gradient() -> None:
    rewards = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], requires_grad=True)
    ranks = torch.tensor([[-1, -1], [0, 1], [0, 1]])
    mask = torch.tensor([[1, 1], [1, 0], [0, 0]])
    losses = plackett_luce_loss(rewards, ranks, mask=mask)
    assert losses.tolist() == [0.0, 0.0, 0.0]
    assert torch.autograd.grad(losses.sum(), rewards)[0].tolist() == [[0.0, 0.0]] * 3


def test_gradients_equal_numeric_ones() -> None:
    rewards = REWARDS.expand(3, 5).clone().requires_grad_()
    ranks = torch.tensor([[3, 1, 0, 2, -1], [0, 1, 0, 1, 0], [1, -1, 0, 1, 2]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 0, 1, 1]])

    def loss(rewards: Tensor) -> Tensor:
        return plackett_luce_loss(rewards, ranks, mask=mask, ties="average")

    assert torch.autograd.gradcheck(loss, (rewards,))


def test_extreme_and_sixteen_bit_rewards_stay_finite() -> None:
    rewards = torch.tensor([[1e4, -1e4, 0.0, 1e4], [-1e4, 1e4, 1e4, 0.0]], requires_grad=True)
    ranks = torch.tensor([[3, 0, 0, -1], [0, 1, 2, 3]])
    losses = plackett_luce_loss(rewards, ranks, ties="average")
    (gradient,) = torch.autograd.grad(losses.sum(), rewards)
    assert losses.isfinite().all()
    assert gradient.isfinite().all()
    # The second: 2e4 + log 2 for the worst on top, log 2 among the equals, 0 for the certain third place
    assert losses[1].item() == pytest.approx(2e4 + 2 * math.log(2.0), rel=1e-5)
    assert plackett_luce_loss(rewards.bfloat16(), ranks, ties="average").dtype == torch.float32


def test_a_group_of_the_largest_size_equals_the_mean_of_sampled_orders() -> None:
    torch.manual_seed(0)
    rewards = torch.randn(1, MAX_TIED + 1)
    ranks = torch.tensor([[0] * MAX_TIED + [-1]])
    exact = plackett_luce_loss(rewards, ranks, ties="average")
    orders = torch.stack([torch.randperm(MAX_TIED) for _ in range(4000)])
    orders = torch.cat([orders, torch.full((4000, 1), -1)], 1)
    sampled = plackett_luce_loss(rewards.expand(4000, -1), orders)
    assert abs(exact.item() - sampled.mean().item()) < 4 * sampled.std().item() / math.sqrt(4000)


def test_unusable_ranks_are_refused_with_their_row() -> None:
    rewards = torch.zeros(2, 3)
    good = torch.tensor([0, 1, 2])
    cases: list[tuple[Tensor, dict[str, Any], str]] = [
        (torch.stack([good, torch.tensor([0, 0, 1])]), {}, "row 1 of the batch share a rank"),
        (torch.stack([good, torch.tensor([0, -2, 1])]), {}, "row 1 of the batch has -2"),
        (torch.stack([good, good]).float(), {}, "whole numbers"),
        (torch.stack([good, good]), {"ties": "drop"}, "ties must be"),
    ]
    for ranks, options, message in cases:
        with pytest.raises(UserError, match=message):
            plackett_luce_loss(rewards, ranks, **options)
    tied = torch.zeros(1, MAX_TIED + 1, dtype=torch.long)
    with pytest.raises(UserError, match=f"{MAX_TIED + 1} responses of row 0"):
        plackett_luce_loss(torch.zeros(1, MAX_TIED + 1), tied, ties="average")
    with pytest.raises(ValueError, match="rewards"):
        plackett_luce_loss(torch.zeros(3), good)
    with pytest.raises(ValueError, match="same shape"):
        plackett_luce_loss(rewards, good)
