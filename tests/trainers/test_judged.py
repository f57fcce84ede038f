"""Batches as matrices, and votes drawn by seed, epoch and row."""

from __future__ import annotations

import itertools
import math
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from hf_align.collators import PreferenceCollator
from hf_align.collators.rankings import vote_share
from hf_align.trainers.judged import draw_votes, judge
from hf_align.trainers.metrics import RowMetrics
from hf_align.trainers.reward_losses import rank_agreement, ranking_metrics

CPU = torch.device("cpu")
ROWS: list[dict[str, Any]] = [
    {"prompt_ids": [1], "response_ids": [[2], [3], [4]], "ranks": [1, -1, 0]},
    {"prompt_ids": [1], "response_ids": [[2], [3]], "ranks": [0, 0]},
    {"prompt_ids": [1], "response_ids": [[2], [3], [4], [5]], "ranks": [-1, 0, 1, -1]},
]
REWARDS = [[0.5, -1.0, 2.0], [1.0, 3.0], [0.0, 1.0, 1.0, 4.0]]


def test_each_pair_of_a_row_stands_once_in_its_matrix():
    batch = PreferenceCollator(0)(ROWS)
    judged = judge(batch, (3, 2, 4), CPU)
    assert judged.label is not None and judged.margin is None
    assert judged.present.tolist() == [[True] * 3 + [False], [True] * 2 + [False] * 2, [True] * 4]
    for number, row in enumerate(ROWS):
        for i, j in itertools.product(range(4), repeat=2):
            ranks = row["ranks"]
            known = i < j < len(ranks) and (ranks[i] >= 0 or ranks[j] >= 0)
            assert judged.compared[number, i, j] == known
            if known:
                a, b = (math.inf if rank < 0 else rank for rank in (ranks[i], ranks[j]))
                assert judged.label[number, i, j] == (1.0 if a < b else 0.5 if a == b else 0.0)
    rewards = judged.lay_out(torch.tensor([value for row in REWARDS for value in row]))
    assert rewards[1].tolist() == [1, 3, 0, 0]
    torch.testing.assert_close(
        judged.best_first(rewards, 5),
        torch.tensor([[2, 0.5, -1, math.nan, math.nan], [1, 3, *[math.nan] * 3], [1, 1, 0, 4, math.nan]]),
        equal_nan=True,
    )


def test_metrics_of_rankings_count_ordered_pairs():
    judged = judge(PreferenceCollator(0)(ROWS), (3, 2, 4), CPU)
    metrics = RowMetrics()
    metrics.add(ranking_metrics(judged.lay_out(torch.tensor([value for row in REWARDS for value in row])), judged))
    logged = metrics.pop()
    # Better and worse reward: row 0: (.5, -1) (2, .5) (2, -1); row 2: (1, 0) (1, 1) (1, 4) (1, 0) (1, 4); row 1 is tied
    pairs = [(0.5, -1), (2, 0.5), (2, -1), (1, 0), (1, 1), (1, 4), (1, 0), (1, 4)]
    assert logged["accuracy"] == pytest.approx(5.5 / 8), "equal rewards count half"
    assert logged["margin"] == pytest.approx(fmean(a - b for a, b in pairs))
    assert logged["chosen_reward"] == pytest.approx(fmean(a for a, _ in pairs))
    assert logged["rejected_reward"] == pytest.approx(fmean(b for _, b in pairs))
    assert logged["mean_reward"] == pytest.approx(fmean([0.5, 2.0, 1.5]))
    assert (logged["min_reward"], logged["max_reward"]) == (-1, 4)


def test_rank_agreement_is_kendalls_tau_b_where_it_is_defined() -> None:
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(40):
        counts = generator.integers(2, 6)
        ranks = generator.integers(-1, 3, counts).tolist()
        rows.append({"prompt_ids": [1], "response_ids": [[2]] * counts, "ranks": ranks})
    rows.append({"prompt_ids": [1], "response_ids": [[2]] * 3, "ranks": [0, 1, -1]})
    judged = judge(PreferenceCollator(0)(rows), [len(row["ranks"]) for row in rows], CPU)
    rewards = torch.tensor(generator.integers(0, 3, judged.present.shape), dtype=torch.float32)
    rewards[-1] = 1.0
    found = rank_agreement(rewards.masked_fill(~judged.present, 0.0), judged)
    for row, values, (tau, counted) in zip(rows, rewards.tolist(), found.tolist(), strict=True):
        people = [-(rank if rank >= 0 else 9) for rank in row["ranks"]]
        result: Any = kendalltau(people, values[: len(people)])
        expected = result.statistic
        assert counted == (not math.isnan(expected)) and tau == pytest.approx(expected if counted else 0.0)
    assert 10 < found[:, 1].sum() < 40 and found[-1].tolist() == [0, 0]


def test_pairs_take_ranks_from_their_labels():
    rows = [{"prompt_ids": [1], "response_ids": [[2], [3]], "label": label, "margin": 2.0} for label in (0.2, 0.5, 1.0)]
    judged = judge(PreferenceCollator(0)(rows), (2, 2, 2), CPU)
    assert judged.ranks.tolist() == [[1, 0], [0, 0], [0, 1]]
    plain = judge(PreferenceCollator(0)([{"prompt_ids": [1], "response_ids": [[2], [3]]}]), (2,), CPU)
    assert plain.label is None and plain.ranks.tolist() == [[0, 1]] and plain.compared.sum() == 1


def test_votes_are_drawn_as_often_as_they_were_given():
    votes, ratings = [1.0, 1.0, 0.0, 0.5], [[3.0, 1.0], [2.0, 1.0], [0.0]]
    epochs = [draw_votes([(7, votes)], seed=1, epoch=epoch).label.item() for epoch in range(400)]
    assert set(epochs) == {0.0, 0.5, 1.0}
    assert fmean(epochs) == pytest.approx(fmean(votes), abs=0.06)
    drawn = [draw_votes([(7, ratings)], seed=1, epoch=epoch) for epoch in range(400)]
    shares = torch.stack([each.label for each in drawn]).mean(0)
    expected = [vote_share(a, b) for a, b in itertools.combinations(ratings, 2)]
    torch.testing.assert_close(shares, torch.tensor(expected), atol=0.06, rtol=0)
    for each in drawn[:20]:  # labels and ranks are of the same ratings
        assert each.ranks is not None
        ranks = each.ranks.tolist()
        assert each.label.tolist() == [0.5 if a == b else float(a < b) for a, b in itertools.combinations(ranks, 2)]


def test_a_draw_depends_on_seed_epoch_and_row_alone():
    rows = [(number, [0.0, 1.0]) for number in range(64)]
    together = draw_votes(rows, seed=3, epoch=2).label
    apart = torch.cat([draw_votes([row], seed=3, epoch=2).label for row in reversed(rows)]).flip(0)
    assert torch.equal(together, apart)
    for other in ({"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 1}):
        assert not torch.equal(together, draw_votes(rows, **other).label)
