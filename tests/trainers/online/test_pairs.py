"""Which responses become pairs, worked out by hand."""

from __future__ import annotations

from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_align.feedback import FunctionJudge
from hf_align.rewards import as_reward
from hf_align.rollouts import Response
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.labels import JudgeLabel, Opinions, RewardLabel, as_numbers
from hf_align.trainers.online.pairs import Chosen, choose_pairs
from tests.trainers.pairs import options


def config(size: int, **changes: Any) -> OnlineDPOConfig:
    return OnlineDPOConfig(**options("out", per_device_train_batch_size=size, num_samples=size, **changes))


def chosen(values: list[list[float]], ids: list[list[int]] | None = None, **changes: Any) -> Chosen:
    """Pairs by scores, of Bradley and Terry's probabilities."""
    ranks = torch.tensor(values, dtype=torch.float64)
    opinions = Opinions(ranks, (ranks[:, :, None] - ranks[:, None]).sigmoid(), torch.zeros(ranks.numel()))
    return choose_pairs(opinions, ids or [[n] for n in range(ranks.numel())], config(ranks.shape[1], **changes))


def counts(pairs: Chosen) -> tuple[int, int, int]:
    return pairs.candidates, pairs.ties, pairs.without_opinion


def test_the_best_is_paired_with_the_worst():
    pairs = chosen([[0.0, 3.0, -1.0], [5.0, 5.0, 4.0], [1.0, 1.0, 1.0]])
    assert pairs.pairs.tolist() == [[1, 2], [3, 5]], "of equals the first; a prompt of ties gives none"
    assert pairs.labels.tolist() == [1.0, 1.0] and counts(pairs) == (3, 1, 0)


def test_all_pairs_are_those_that_are_no_ties():
    pairs = chosen([[0.0, 3.0, 0.0]], pairs="all")
    assert pairs.pairs.tolist() == [[1, 0], [1, 2]] and counts(pairs) == (3, 1, 0)


def test_soft_labels_keep_ties_of_different_responses():
    pairs = chosen([[0.0, 3.0, 0.0]], pairs="all", labels="soft")
    assert pairs.pairs.tolist() == [[1, 0], [0, 2], [1, 2]] and counts(pairs) == (3, 0, 0)
    assert pairs.labels.tolist() == pytest.approx([0.952574, 0.5, 0.952574])


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_a_response_beside_itself_is_a_tie(labels: str):
    pairs = chosen([[0.0, 3.0]], [[7, 8], [7, 8]], labels=labels)
    assert pairs.pairs.shape == (0, 2) and counts(pairs) == (1, 1, 0)


def test_responses_without_an_opinion_take_no_part():
    pairs = chosen([[nan, 3.0, 1.0], [nan, nan, 1.0]])
    assert pairs.pairs.tolist() == [[1, 2]] and counts(pairs) == (2, 0, 1)
    pairs = chosen([[nan, 3.0, 1.0]], pairs="all")
    assert pairs.pairs.tolist() == [[1, 2]] and counts(pairs) == (3, 0, 2)


def responses(*texts: str) -> list[Response]:
    return [Response(0, [number], text != "cut", text) for number, text in enumerate(texts)]


def test_a_judge_in_circles_is_ranked_by_its_means_and_paired_by_its_answers():
    """It prefers a to b, b to c and c to a, and all of them to d."""
    beats = {("a", "b"), ("b", "c"), ("c", "a"), ("a", "d"), ("b", "d"), ("c", "d")}
    judge = FunctionJudge(lambda prompt, first, second: float((first, second) in beats))
    opinions = JudgeLabel(judge, config(4))([{"prompt": "x", "prompt_ids": [1]}], responses(*"abcd"))
    assert opinions.values.tolist() == [pytest.approx([2 / 3, 2 / 3, 2 / 3, 0])]
    ids = [[n] for n in range(4)]
    assert choose_pairs(opinions, ids, config(4)).pairs.tolist() == [[0, 3]]
    every = choose_pairs(opinions, ids, config(4, pairs="all"))
    assert every.pairs.tolist() == [[0, 1], [2, 0], [0, 3], [1, 2], [1, 3], [2, 3]]


def test_a_judge_that_goes_by_the_order_gives_ties_only_and_one_without_opinions_none():
    rows = [{"prompt": "x", "prompt_ids": [1]}]
    left = JudgeLabel(FunctionJudge(lambda prompt, first, second: "first"), config(3))(rows, responses(*"abc"))
    assert counts(choose_pairs(left, [[0], [1], [2]], config(3, pairs="all"))) == (3, 3, 0)
    silent = JudgeLabel(FunctionJudge(lambda prompt, first, second: None), config(3))(rows, responses(*"abc"))
    assert counts(choose_pairs(silent, [[0], [1], [2]], config(3))) == (1, 0, 1)
    assert as_numbers([[0.5, None]]).isnan().tolist() == [[False, True]]


def test_judges_get_messages_where_prompts_are_messages():
    seen = []

    def judge(prompt: Any, first: Any, second: Any) -> str:
        seen.append((prompt, first))
        return "tie"

    prompt = [{"role": "user", "content": "x"}]
    JudgeLabel(FunctionJudge(judge), config(2))([{"prompt": prompt, "prompt_ids": [1]}], responses("a", "b"))
    assert seen[0] == (prompt, [{"role": "assistant", "content": "a"}])


def test_a_reward_ranks_cut_responses_after_their_penalty(tmp_path: Path):
    reward = as_reward(lambda prompts, responses: [float(len(text)) for text in responses])
    label = RewardLabel(reward, config(2, missing_eos_penalty=4.0))
    opinions = label([{"prompt": "x", "prompt_ids": [1]}], responses("cut", "a"))
    assert opinions.scores.tolist() == [3.0, 1.0] and opinions.values.tolist() == [[-1.0, 1.0]]
    assert opinions.metrics["objective/shaped_scores"].tolist() == [-1.0, 1.0]
    assert opinions.preferences[0, 1, 0].item() == pytest.approx(0.880797, abs=1e-6)
    assert choose_pairs(opinions, [[0], [1]], label.config).pairs.tolist() == [[1, 0]]
