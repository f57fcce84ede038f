"""Length penalty: fitted as least squares says, subtracted by everything that scores, kept with the model."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from hf_align.errors import UserError
from hf_align.models.ensemble import RewardEnsemble
from hf_align.models.length_penalty import judged_differences, length_slope
from hf_align.models.loading import load_policy
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.value import PolicyWithValueHead
from hf_align.rewards import AdapterReward
from tests.tiny import tiny_model

ROWS = [
    {"prompt": "Say it:", "chosen": " a long answer", "rejected": " no"},
    {"prompt": "Go on:", "chosen": " yes", "rejected": " never, not at all"},
    {"prompt": "Then:", "chosen": " a", "rejected": " bcd"},
]
PROMPTS, RESPONSES = ["Review it.", "Hm,", "Say it:"], [" Dull.", " a long, warm film", " a Say it"]
TOKENS = torch.tensor([len(text) + 1.0 for text in RESPONSES], dtype=torch.float64)  # bytes and the end


def scores(model: Any) -> torch.Tensor:
    return torch.tensor(model.score(PROMPTS, RESPONSES), dtype=torch.float64)


def test_the_slope_is_that_of_least_squares_over_pairs_in_both_directions():
    rng = np.random.default_rng(0)
    rows = [
        {
            "response_ids": [[0] * length for length in rng.integers(1, 30, size=k)],
            "scores": rng.normal(size=k).tolist(),
        }
        for k in (2, 2, 3, 5)
    ]
    planted = [
        [2 * score + 0.3 * len(ids) + 7 for score, ids in zip(row["scores"], row["response_ids"], strict=True)]
        for row in rows
    ]
    assert length_slope(planted, rows, "rows") == pytest.approx(0.3)

    noisy = [rng.normal(size=len(row["scores"])).tolist() for row in rows]
    table, target = [], []
    for rewards, row in zip(noisy, rows, strict=True):
        count = math.comb(len(rewards), 2)
        for i, j in combinations(range(len(rewards)), 2):
            for first, second in ((i, j), (j, i)):  # both directions, so an intercept is 0
                lengths = len(row["response_ids"][first]) - len(row["response_ids"][second])
                table.append(np.array([row["scores"][first] - row["scores"][second], lengths, 1]) / count**0.5)
                target.append((rewards[first] - rewards[second]) / count**0.5)
    expected = np.linalg.lstsq(np.array(table), np.array(target), rcond=None)[0]
    assert length_slope(noisy, rows, "rows") == pytest.approx(expected[1])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, [1.0]),
        ({"margin": 2.5}, [2.5]),
        ({"label": 0.25}, [-0.5]),
        ({"ranks": [1, 0, -1]}, [-1.0, 1.0, 1.0]),
        ({"ranks": [0, 0]}, [0.0]),
        ({"ranks": [0, 1], "scores": [3.0, 1.0]}, [2.0]),
    ],
)
def test_a_judgement_s_difference_is_that_of_scores_or_of_the_label(row: dict[str, Any], expected: list[float]):
    assert judged_differences(row) == expected


def test_responses_that_nobody_compared_do_not_count():
    rows = [{"response_ids": [[0], [0] * 3, [0] * 9], "ranks": [0, -1, -1]}, {"response_ids": [[0] * 5, [0]]}]
    without = [{"response_ids": [[0], [0] * 3, [0] * 9], "ranks": [0, -1, -1]}, rows[1]]
    assert math.isnan(judged_differences(rows[0])[2])
    assert math.isfinite(length_slope([[1.0, 2.0, 5.0], [1.0, 3.0]], without, "rows"))


@pytest.mark.parametrize("lengths", [(4, 4, 7, 7), (2, 1, 5, 4)], ids=["equal", "explained"])
def test_a_set_that_does_not_tell_length_from_judgement_is_refused(lengths: tuple[int, ...]):
    a, b, c, d = ([0] * length for length in lengths)
    with pytest.raises(UserError, match="eval_dataset doesn't show what length adds to the reward"):
        length_slope([[1.0, 0.0], [2.0, 0.0]], [{"response_ids": [a, b]}, {"response_ids": [c, d]}], "eval_dataset")


@pytest.mark.parametrize(("head", "lora"), [("linear", True), ("linear", None), ("attention", None)])
def test_the_penalty_is_subtracted_wherever_the_model_goes(
    head: Any, lora: bool | None, tiny_model_dir: str, tmp_path: Path
):
    torch.manual_seed(0)
    model = RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(head=head), lora=lora)
    raw = scores(model)
    penalty = model.penalize_length(ROWS)
    assert abs(penalty) > 1e-3
    expected = raw - penalty * TOKENS
    torch.testing.assert_close(scores(model), expected, atol=1e-5, rtol=0)
    assert model.measure_length_penalty(ROWS) == pytest.approx(penalty, abs=1e-5), "fitted again it stays"
    every = model.score(PROMPTS, RESPONSES, return_all=True)
    assert [each[-1] for each in every] == pytest.approx(expected.tolist(), abs=1e-5)
    prefix = model.score_ids([list(b"Hm,")], [list(b" a")])
    assert model.score_ids([list(b"Hm,")], [list(b" a ")], return_all=True)[0][1] == pytest.approx(prefix[0], abs=1e-5)

    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "reward_config.json").read_text())["length_penalty"] == penalty
    assert torch.equal(scores(load_reward_model(tmp_path / "saved")), scores(model))
    model.merge_and_save(tmp_path / "merged")
    torch.testing.assert_close(scores(load_reward_model(tmp_path / "merged")), expected, atol=1e-5, rtol=0)
    alone = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged", trust_remote_code=True).eval()
    ids = model.tokenizer(f"{PROMPTS[1]}{RESPONSES[1]}{model.tokenizer.eos_token}", return_tensors="pt")
    mask = torch.arange(ids["input_ids"].shape[1])[None] >= len(PROMPTS[1])
    with torch.no_grad():
        assert alone(**ids, response_mask=mask).logits.item() == pytest.approx(expected[1].item(), abs=1e-5)

    if lora:
        policy = get_peft_model(load_policy(tiny_model_dir), LoraConfig(r=2, task_type="CAUSAL_LM"))
        torch.testing.assert_close(scores(AdapterReward(policy, model)), expected, atol=1e-5, rtol=0)
    members = RewardEnsemble([model, load_reward_model(tmp_path / "saved")])
    together = members.member_scores(PROMPTS, RESPONSES)
    torch.testing.assert_close(together.double(), expected.expand(2, -1), atol=1e-5, rtol=0)

    normalization = model.normalize(ROWS, "three prompts")
    normal = (expected - normalization.mean) / normalization.std
    torch.testing.assert_close(scores(model), normal, atol=1e-5, rtol=0)
    assert model.reward_config.length_penalty == pytest.approx(penalty / normalization.std)


def test_a_value_head_refuses_to_start_from_a_penalised_reward(tiny_model_dir: str):
    reward = RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(length_penalty=0.1))
    with pytest.raises(UserError, match="length penalty, which a value head can't hold; start from zero"):
        PolicyWithValueHead(tiny_model()).init_from_reward(reward)
    with pytest.raises(UserError, match=r"RewardModelConfig.length_penalty is nan; give a finite number"):
        RewardModelConfig(length_penalty=math.nan)
