"""Normalised rewards: mean 0 and standard deviation 1 on a named set, the same in everything that scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from hf_align.errors import UserError
from hf_align.models.loading import load_policy
from hf_align.models.merging import merge_adapter
from hf_align.models.normalization import Normalization, normalized
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.value import PolicyWithValueHead
from hf_align.rewards import AdapterReward
from hf_align.rewards.reward import as_reward
from tests.tiny import tiny_model

WORDS = ("Say it", "Go on", "Then")
ROWS = [{"prompt": f"{word}:", "chosen": f" a {word}", "rejected": " no"} for word in WORDS]
TEXTS = [(row["prompt"], row[side]) for row in ROWS for side in ("chosen", "rejected")]
OTHERS = [{"prompt": "Other", "chosen": " one thing", "rejected": " and another"}]
PROMPTS, RESPONSES = ["Review it.", "Hm,", "Say it:"], [" Dull.", " a long, warm film", " a Say it"]


def scores(model: Any, texts: list[tuple[str, str]] = TEXTS) -> torch.Tensor:
    return torch.tensor(model.score(*map(list, zip(*texts, strict=True))), dtype=torch.float64)


@pytest.mark.parametrize(
    ("head", "lora"),
    [
        *(("linear", True), ("linear", None), ("mlp", True), ("attention", None), ("tasks", True)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("mlp", None), ("attention", True), ("tasks", None))
        ),
    ],
)
def test_normalised_rewards_are_raw_minus_mean_by_deviation_wherever_the_model_goes(
    head: str, lora: bool | None, tiny_model_dir: str, tmp_path: Path
):
    torch.manual_seed(0)
    config = RewardModelConfig(head=head) if head != "tasks" else RewardModelConfig(tasks={"tone": 3})  # type: ignore[arg-type]
    model = RewardModel.from_backbone(tiny_model_dir, config, lora=lora)
    others = list(zip(PROMPTS, RESPONSES, strict=True))
    raw, elsewhere = scores(model), scores(model, others)
    tasks = model.score_tasks(PROMPTS, RESPONSES) if head == "tasks" else None
    measured = model.normalize(ROWS, "three prompts")
    assert (measured.name, measured.rows) == ("three prompts", 3)
    assert measured.mean == pytest.approx(raw.mean().item()) and measured.std == pytest.approx(
        raw.std(correction=0).item()
    )
    torch.testing.assert_close(scores(model), (raw - raw.mean()) / raw.std(correction=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores(model, others), (elsewhere - measured.mean) / measured.std, atol=1e-5, rtol=0)
    assert scores(model).argsort().tolist() == raw.argsort().tolist()
    every = model.score(PROMPTS, RESPONSES, return_all=True)
    assert [rewards[-1] for rewards in every] == pytest.approx(scores(model, others).tolist(), abs=1e-5)
    if tasks is not None:
        assert model.score_tasks(PROMPTS, RESPONSES) == tasks

    model.save_pretrained(tmp_path / "saved")
    stored = json.loads((tmp_path / "saved" / "reward_config.json").read_text())["normalization"]
    assert stored == {
        **{"name": "three prompts", "rows": 3, "mean": measured.mean, "std": measured.std},
        "offset": -measured.mean / measured.std,
    }
    again = load_reward_model(tmp_path / "saved")
    assert again.normalization == measured and torch.equal(scores(again), scores(model))
    model.merge_and_save(tmp_path / "merged")
    torch.testing.assert_close(scores(load_reward_model(tmp_path / "merged")), scores(model), atol=1e-5, rtol=0)
    if lora:
        merge_adapter(tmp_path / "saved", tmp_path / "merged-2")
        assert load_reward_model(tmp_path / "merged-2").normalization == measured
    if head == "linear":
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
        ids = model.tokenizer(f"{PROMPTS[0]}{RESPONSES[0]}{model.tokenizer.eos_token}", return_tensors="pt")
        with torch.no_grad():
            without = plain(**ids).logits.item()
        assert without == pytest.approx(scores(model, others)[0].item() - model.offset, abs=1e-5)


def test_a_second_set_replaces_the_first_and_the_same_one_changes_nothing(tiny_model_dir: str):
    torch.manual_seed(0)
    model = RewardModel.from_backbone(tiny_model_dir)
    raw, weight = scores(model), model.head.weight.clone()  # type: ignore[operator, union-attr]
    first = model.normalize(ROWS, "three prompts")
    once = scores(model)
    second = model.normalize(ROWS, "three prompts")
    assert (second.mean, second.std) == pytest.approx((first.mean, first.std), rel=1e-5)
    torch.testing.assert_close(scores(model), once, atol=1e-5, rtol=0)
    model.normalize(OTHERS, "others")
    last = model.normalize(ROWS, "three prompts again")
    assert (last.mean, last.std) == pytest.approx((raw.mean().item(), raw.std(correction=0).item()), rel=1e-4)
    torch.testing.assert_close(scores(model), once, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.head.weight * last.std, weight, atol=1e-6, rtol=0)  # type: ignore[operator, arg-type]


def test_normalisation_equals_a_case_by_hand():
    first = normalized([1.0, 3.0], "a", 1, None)
    assert first == Normalization("a", 1, 2.0, 1.0) and first.offset == -2
    assert normalized([4.0, 8.0], "b", 2, Normalization("a", 1, 2.0, 3.0)) == Normalization("b", 2, 20.0, 6.0)


def test_ppo_s_ways_to_score_have_the_offset_too(tiny_model_dir: str, tmp_path: Path):
    torch.manual_seed(0)
    model = RewardModel.from_backbone(tiny_model_dir, lora=LoraConfig(r=2, target_modules=["q_proj"]))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.normalize(ROWS, "three prompts")
    model.save_pretrained(tmp_path / "reward")
    expected = scores(model)
    policy: Any = get_peft_model(load_policy(tiny_model_dir), LoraConfig(r=2, target_modules=["q_proj"]))  # type: ignore[arg-type]
    for source in (model, str(tmp_path / "reward")):
        torch.testing.assert_close(scores(AdapterReward(policy, source)), expected, atol=1e-5, rtol=0)
    reward = as_reward(str(tmp_path / "reward"))
    prompts, responses = map(list, zip(*TEXTS, strict=True))
    ours = reward(prompts, responses, finished=[True] * len(prompts)).double()
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    values = PolicyWithValueHead(tiny_model())
    values.init_from_reward(model)
    assert values.value_head.bias.item() == pytest.approx(model.offset)  # type: ignore[union-attr, operator]


def test_what_cannot_be_normalised_is_refused(tiny_model_dir: str):
    model = RewardModel.from_backbone(tiny_model_dir)
    assert isinstance(model.head, torch.nn.Linear)
    with torch.no_grad():
        model.head.weight.zero_()
    with pytest.raises(UserError, match="All 6 scores of three prompts are equal, so they can't be normalised"):
        model.normalize(ROWS, "three prompts")
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="Scores of three prompts are NaN or infinite"):
        model.normalize(ROWS, "three prompts")
    with pytest.raises(UserError, match="dataset"):
        model.normalize([{"text": "a"}], "no pairs")
    classifier: Any = RewardModel.from_backbone(tiny_model_dir).model
    adapted = RewardModel(get_peft_model(classifier, LoraConfig(target_modules=["score"])), model.tokenizer)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="The reward head has an adapter in it"):
        adapted.normalize(ROWS, "three prompts")
    assert adapted.normalization is None
