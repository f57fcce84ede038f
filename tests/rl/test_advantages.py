"""Advantages compared with brute-force sums, whitening and running statistics with plain formulas."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_align.rl.advantages import discounted_returns, gae, group_advantages, whiten
from hf_align.rl.running_statistics import RunningMeanStd

LENGTHS = [7, 1, 0, 4, 6]
T = 7


def masks(where: str) -> Tensor:
    mask = torch.zeros(len(LENGTHS), T, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        start = {"left": 0, "right": T - length, "middle": (T - length) // 2}[where]
        mask[row, start : start + length] = True
    return mask


def episodes(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards and values: the same numbers in the same order wherever the tokens are, NaN outside."""
    rewards, values = torch.full(mask.shape, math.nan), torch.full(mask.shape, math.nan)
    for row, length in enumerate(LENGTHS):
        gen = torch.Generator().manual_seed(row)
        rewards[row, mask[row]] = torch.randn(length, generator=gen)
        values[row, mask[row]] = torch.randn(length, generator=gen)
    return rewards, values


def brute_force_gae(
    rewards: list[float], values: list[float], gamma: float, lam: float, bootstrap: float
) -> list[float]:
    n = len(rewards)
    values = [*values, bootstrap]
    deltas = [rewards[t] + gamma * values[t + 1] - values[t] for t in range(n)]
    return [sum((gamma * lam) ** k * deltas[t + k] for k in range(n - t)) for t in range(n)]


@pytest.mark.parametrize("where", ["left", "right", "middle"])
@pytest.mark.parametrize("bootstrap", [None, [0.5, -1.0, 3.0, 2.0, 0.0]])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (0.5, 0.0), (0.97, 1.0)])
def test_gae_equals_brute_force(gamma: float, lam: float, bootstrap: list[float] | None, where: str) -> None:
    mask = masks(where)
    rewards, values = episodes(mask)
    after = None if bootstrap is None else torch.tensor(bootstrap)
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam, bootstrap=after)
    for row in range(len(LENGTHS)):
        own = mask[row]
        expected = brute_force_gae(
            rewards[row, own].tolist(), values[row, own].tolist(), gamma, lam, bootstrap[row] if bootstrap else 0.0
        )
        assert advantages[row, own].tolist() == pytest.approx(expected, abs=1e-5)
        assert returns[row, own].tolist() == pytest.approx((advantages + values)[row, own].tolist(), abs=1e-6)
        assert not advantages[row, ~own].any()
        assert not returns[row, ~own].any()


def test_gae_by_hand() -> None:
    # gamma 0.5, lam 0.5: delta_1 = 4 - 2 = 2; delta_0 = 1 + 0.5 * 2 - 3 = -1; A_0 = -1 + 0.25 * 2
    advantages, returns = gae(
        torch.tensor([[1.0, 4.0]]), torch.tensor([[3.0, 2.0]]), torch.ones(1, 2), gamma=0.5, lam=0.5
    )
    assert advantages.tolist() == [[-0.5, 2.0]]
    assert returns.tolist() == [[2.5, 4.0]]


@pytest.mark.parametrize("where", ["left", "right"])
def test_lambda_one_is_returns_minus_values_and_lambda_zero_one_step(where: str) -> None:
    mask = masks(where)
    rewards, values = episodes(mask)
    advantages, returns = gae(rewards, values, mask, gamma=0.9, lam=1.0)
    torch.testing.assert_close(returns, discounted_returns(rewards, mask, gamma=0.9), atol=1e-5, rtol=0)
    torch.testing.assert_close(advantages, (returns - values).masked_fill(~mask, 0.0))
    one_step, _ = gae(rewards, values, mask, gamma=0.9, lam=0.0)
    inner = mask & torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    expected = rewards[:, :-1] + 0.9 * values[:, 1:] - values[:, :-1]
    torch.testing.assert_close(one_step[:, :-1][inner[:, :-1]], expected[inner[:, :-1]])


def test_perfect_values_leave_no_advantage() -> None:
    mask = masks("left")
    rewards, _ = episodes(mask)
    advantages, _ = gae(rewards, discounted_returns(rewards, mask, gamma=0.9), mask, gamma=0.9, lam=0.7)
    assert advantages.abs().max() < 1e-5


@pytest.mark.parametrize("where", ["left", "right", "middle"])
@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
def test_discounted_returns_equal_brute_force(gamma: float, where: str) -> None:
    mask = masks(where)
    rewards, _ = episodes(mask)
    returns = discounted_returns(rewards, mask, gamma=gamma)
    for row in range(len(LENGTHS)):
        own = rewards[row, mask[row]].tolist()
        expected = [sum(gamma ** (k - t) * own[k] for k in range(t, len(own))) for t in range(len(own))]
        assert returns[row, mask[row]].tolist() == pytest.approx(expected, abs=1e-5)
        assert not returns[row, ~mask[row]].any()


def test_results_are_constants_in_fp32() -> None:
    values = torch.zeros(1, 2, dtype=torch.bfloat16, requires_grad=True)
    for result in gae(values, values, torch.ones(1, 2, dtype=torch.int64)):
        assert result.dtype == torch.float32
        assert not result.requires_grad


def test_no_tokens_at_all() -> None:
    empty = torch.zeros(3, 0)
    assert gae(empty, empty, empty)[0].shape == (3, 0)
    assert discounted_returns(empty, empty).shape == (3, 0)


def test_holes_and_wrong_shapes_are_refused() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 1]])
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="row 1"):
        gae(x, x, mask)
    with pytest.raises(ValueError, match="row 1"):
        discounted_returns(x, mask)
    with pytest.raises(ValueError, match="bootstrap"):
        gae(x, x, torch.ones(2, 3), bootstrap=torch.zeros(2, 1))
    with pytest.raises(ValueError, match="values"):
        gae(x, torch.zeros(2, 4), torch.ones(2, 3))


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whiten_uses_the_unbiased_variance_of_the_mask(shift_mean: bool) -> None:
    mask = masks("middle")
    x, _ = episodes(mask)
    x = x * 5 + 100
    inside = x[mask]
    expected = (inside - inside.mean()) / inside.std() + (0.0 if shift_mean else inside.mean())
    result = whiten(x, mask, shift_mean=shift_mean)
    torch.testing.assert_close(result[mask], expected, atol=1e-4, rtol=1e-5)
    assert not result[~mask].any()


def test_whitening_one_or_equal_or_no_elements_is_finite() -> None:
    x = torch.tensor([[3.0, math.nan, 3.0]])
    one, equal = torch.tensor([[1, 0, 0]]), torch.tensor([[1, 0, 1]])
    assert whiten(x, one).tolist() == [[0.0, 0.0, 0.0]]
    assert whiten(x, one, shift_mean=False).tolist() == [[3.0, 0.0, 0.0]]
    assert whiten(x, equal).tolist() == [[0.0, 0.0, 0.0]]
    assert whiten(x, torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]


def test_running_statistics_of_batches_equal_those_of_everything() -> None:
    everything = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 1e6
    stats = RunningMeanStd()
    for batch in everything.split([1, 0, 2, 500, 497]):
        stats.update(batch.reshape(1, -1))
    assert stats.count == 1000
    assert stats.mean == pytest.approx(everything.mean().item(), rel=1e-12)
    assert stats.std == pytest.approx(everything.std().item(), rel=1e-9)  # a sum of squares would have lost it at 1e6
    normal = stats.normalize(everything)
    assert (normal.mean().item(), normal.std().item()) == pytest.approx((0.0, 1.0), abs=1e-6)


def test_merged_processes_equal_one() -> None:
    gen = torch.Generator().manual_seed(0)
    parts = [torch.randn(size, generator=gen) * size for size in (5, 40, 3)]
    one, merged = RunningMeanStd(), RunningMeanStd()
    for part in parts:
        one.update(part)
        process = RunningMeanStd()
        process.update(part)
        merged.merge(process)
    merged.merge(RunningMeanStd())
    assert (merged.count, merged.mean, merged.std) == pytest.approx((one.count, one.mean, one.std))


def test_running_state_survives_json() -> None:
    stats, loaded = RunningMeanStd(), RunningMeanStd()
    stats.update(torch.tensor([1.0, 4.0]))
    loaded.load_state_dict(json.loads(json.dumps(stats.state_dict())))
    for each in (stats, loaded):
        each.update(torch.tensor([10.0]))
    assert loaded.state_dict() == stats.state_dict()
    assert (loaded.mean, loaded.std) == pytest.approx((5.0, math.sqrt(21.0)))
    loaded.load_state_dict({"count": 2, "mean": 2.5, "squares": 4.5})  # as saved before there were shapes
    assert (loaded.count, loaded.shape, loaded.std) == (2, (), pytest.approx(math.sqrt(4.5)))


@pytest.mark.parametrize("seen", [[], [2.0], [2.0, 2.0]])
def test_normalize_can_divide_before_two_different_numbers_were_seen(seen: list[float]) -> None:
    stats = RunningMeanStd()
    stats.update(torch.tensor(seen))
    assert stats.normalize(torch.tensor([5.0])).tolist() == [3.0 if seen else 5.0]


def test_each_element_of_a_shape_has_its_own_statistics() -> None:
    x = torch.randn(20, 2, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 100.0])
    stats, loaded = RunningMeanStd(shape=(2, 3)), RunningMeanStd()
    stats.update(x[:12].view(3, 4, 2, 3))
    other = RunningMeanStd((2, 3))
    other.update(x[12])
    other.update(x[13:])
    stats.merge(other)
    loaded.load_state_dict(json.loads(json.dumps(stats.state_dict())))
    mean, std = x.double().mean(0), x.double().std(0)
    for each in (stats, loaded):
        assert (each.count, each.shape) == (20, (2, 3))
        torch.testing.assert_close(each.mean, mean)
        torch.testing.assert_close(each.std, std)
    torch.testing.assert_close(stats.normalize(x), ((x - mean) / std).float())
    torch.testing.assert_close(stats.normalize(x, shift_mean=False), (x / std).float())
    constant = RunningMeanStd((2,))
    constant.update(torch.tensor([[1.0, 2.0], [1.0, 4.0]]))
    assert constant.std.tolist() == [1.0, math.sqrt(2.0)], "an element that never differs is divided by 1"


def test_statistics_of_another_shape_are_refused() -> None:
    stats = RunningMeanStd((2,))
    for act in (stats.update, stats.normalize):
        for shape in ((3,), (2, 3), ()):
            with pytest.raises(ValueError, match="Observations have the shape"):
                act(torch.zeros(shape))
    with pytest.raises(ValueError, match="don't merge"):
        stats.merge(RunningMeanStd())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_running_statistics_refuse_what_would_poison_them(bad: float) -> None:
    stats: Any = RunningMeanStd()
    with pytest.raises(ValueError, match="NaN"):
        stats.update(torch.tensor([1.0, bad]))
    assert stats.count == 0


def test_group_advantages_by_hand() -> None:
    returns = torch.tensor([1.0, 0.0, 0.5, 4.0, 4.0, 4.0, -1.0, 2.0, 5.0])
    # 1 - (0 + .5) / 2, 0 - (1 + .5) / 2, .5 - (1 + 0) / 2; equal returns give 0; -1 - 3.5, 2 - 2, 5 - .5.
    expected = [0.75, -0.75, 0.0, 0.0, 0.0, 0.0, -4.5, 0.0, 4.5]
    assert group_advantages(returns, 3).tolist() == expected
    # Deviations (n - 1): sqrt(.25 + .25) / sqrt(2) = .5, 0 and 3.
    scales = torch.tensor([0.5, 0.0, 3.0]).repeat_interleave(3) + 1e-4
    torch.testing.assert_close(group_advantages(returns, 3, scale=True), torch.tensor(expected) / scales)


def test_group_advantages_are_the_returns_minus_the_others() -> None:
    size = 5
    returns = torch.randn(4 * size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for start in range(0, len(returns), size):
        group = returns[start : start + size].tolist()
        for place, value in enumerate(group):
            others = [each for number, each in enumerate(group) if number != place]
            mine = group_advantages(returns, size)[start + place].item()
            assert mine == pytest.approx(value - sum(others) / len(others), abs=1e-12)


def test_a_group_without_a_difference_teaches_nothing_however_it_is_scaled() -> None:
    for size in (2, 3, 7):
        for value in (0.1, 1 / 3, -1e6, 1e-7):
            equal = torch.full((2 * size,), value)
            assert not group_advantages(equal, size).any() and not group_advantages(equal, size, scale=True).any()


@pytest.mark.parametrize(("count", "size"), [(4, 1), (5, 2), (2, 4)])
def test_groups_that_are_none_are_refused(count: int, size: int) -> None:
    with pytest.raises(ValueError, match="multiple of size >= 2"):
        group_advantages(torch.zeros(count), size)


def test_whitening_by_row_is_whitening_each_row() -> None:
    generator = torch.Generator().manual_seed(0)
    x, mask = torch.randn(3, 5, generator=generator), torch.tensor([[1] * 5, [1, 1, 1, 0, 0], [0, 1, 0, 0, 0]])
    for shift in (True, False):
        each = [whiten(row, part, shift_mean=shift) for row, part in zip(x, mask, strict=True)]
        torch.testing.assert_close(whiten(x, mask, shift_mean=shift, by_row=True), torch.stack(each))
    assert not whiten(x, mask, by_row=True)[2].any(), "a single element has nothing to differ from"
