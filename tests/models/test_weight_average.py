"""Averaged weights against the averages of merged matrices."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn

from hf_align import RewardModel, load_reward_model
from hf_align.errors import UserError
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.weight_average import weight_average
from tests.tiny import save_tiny

PROMPTS, RESPONSES = ["Say it:"] * 2 + ["Go"], [" a joy", " no", " on and on"]
ROWS = [{"prompt": f"Go {n}", "chosen": " on", "rejected": " away, away"} for n in range(3)]
ROWS_OF_OTHER_LENGTHS = [{**row, "chosen": " on" * (place + 1)} for place, row in enumerate(ROWS)]
WEIGHTS = [1.0, 3.0, 2.0]


def adapters(folder: str, **settings: Any) -> list[RewardModel]:
    """Members of different ranks, scalings and layers."""
    members = []
    for number, targets in enumerate((["q_proj", "down_proj"], ["q_proj"], "all-linear")):
        torch.manual_seed(number)
        options = {"r": number + 1, "lora_alpha": 3, "target_modules": targets, "init_lora_weights": False, **settings}
        options |= {"use_rslora": True} if number == 2 else {"rank_pattern": {"layers.0.self_attn.q_proj": 4}}
        members.append(RewardModel.from_backbone(folder, lora=LoraConfig(**options)))
    return members


def scores(model: RewardModel) -> torch.Tensor:
    return torch.tensor(model.score(PROMPTS, RESPONSES))


def test_an_average_of_adapters_has_the_average_of_the_merged_matrices(tiny_model_dir: str, tmp_path: Path):
    alone = adapters(tiny_model_dir)
    for member in alone:
        member.normalize(ROWS, "three pairs")
    before = [scores(member) for member in alone]
    merged = [dict(member.merged().model.named_parameters()) for member in alone]
    average = weight_average(alone, WEIGHTS)
    assert [scores(member).tolist() for member in alone] == [each.tolist() for each in before]
    for name, weight in average.merged().model.named_parameters():
        expected = sum(share / 6 * each[name] for share, each in zip(WEIGHTS, merged, strict=True))
        torch.testing.assert_close(weight, expected, atol=1e-6, rtol=1e-5)
    assert average.offset == pytest.approx(sum(w / 6 * m.offset for w, m in zip(WEIGHTS, alone, strict=True)))

    average.save_pretrained(tmp_path / "average")
    again = load_reward_model(tmp_path / "average")
    assert type(again) is RewardModel and torch.equal(scores(again), scores(average))
    twice = weight_average([average, again], [1.0, 1.0])  # of folders and of averages, too
    torch.testing.assert_close(scores(twice), scores(average), atol=1e-5, rtol=1e-5)


def test_an_average_of_linear_heads_on_one_base_scores_the_mean(tiny_model_dir: str):
    members = []
    for seed in range(2):
        torch.manual_seed(seed)
        members.append(RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(pooling="mean")))
        members[-1].penalize_length(ROWS_OF_OTHER_LENGTHS)
        members[-1].normalize(ROWS, "three pairs")
    average = weight_average(members, [1.0, 3.0])
    torch.testing.assert_close(scores(average), 0.25 * scores(members[0]) + 0.75 * scores(members[1]))
    assert average.model is members[0].model


def test_whole_models_fine_tuned_from_one_base_are_averaged_and_others_refused(tiny_model_dir: str, tmp_path: Path):
    torch.manual_seed(0)
    members = [RewardModel.from_backbone(tiny_model_dir)]
    members.append(copy.deepcopy(members[0]))
    with torch.no_grad():
        for parameter in members[1].parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    average = weight_average(members)
    pairs = zip(average.parameters(), members[0].parameters(), members[1].parameters(), strict=True)
    assert all(torch.allclose(mean, (first + second) / 2, atol=1e-6) for mean, first, second in pairs)

    for module in members[1].modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight)
    with pytest.raises(UserError, match="didn't start from the same weights"):
        weight_average(members)
    other = RewardModel.from_backbone(save_tiny(tmp_path / "other", hidden_size=16))
    with pytest.raises(UserError, match="Member 1 has another base than member 0"):
        weight_average([members[0], other])


def test_members_whose_average_would_be_no_model_are_refused(tiny_model_dir: str):
    lora = {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False}

    def member(config: RewardModelConfig | None = None, **settings: Any) -> RewardModel:
        return RewardModel.from_backbone(tiny_model_dir, config, lora=LoraConfig(**{**lora, **settings}))

    mlp = RewardModelConfig(head="mlp")
    for members, message in (
        ([member(), member(RewardModelConfig(pooling="mean"))], "another head, pooling or tasks"),
        ([member(mlp), member(mlp)], "heads of several layers that didn't start from the same weights"),
        ([member(use_dora=True), member()], "isn't plain LoRA"),
        ([member(), RewardModel.from_backbone(tiny_model_dir)], "has another base|doesn't share its base"),
        ([RewardModel.from_backbone(tiny_model_dir), "nowhere/at-all"], "nowhere"),
    ):
        with pytest.raises(UserError, match=message):
            weight_average(members)
    first, second = member(), member()
    first.normalize(ROWS, "three pairs")
    with pytest.raises(UserError, match="aren't normalised on one set"):
        weight_average([first, second])
    with pytest.raises(UserError, match="give one for each"):
        weight_average([first, second], [1.0])


def test_heads_of_several_layers_that_started_alike_are_averaged(tiny_model_dir: str):
    first = RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(head="mlp"))
    second = copy.deepcopy(first)
    with torch.no_grad():
        for parameter in second.head.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    average = weight_average([first, second])
    for name, weight in average.head.state_dict().items():
        expected = (first.head.state_dict()[name] + second.head.state_dict()[name]) / 2
        torch.testing.assert_close(weight, expected)
