"""A member of an ensemble scores as it does alone, however members share a backbone and wherever they were saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from hf_align import RewardEnsemble, RewardModel, load_reward_model
from hf_align.models.reward_config import RewardModelConfig
from tests.tiny import save_tiny

PROMPTS = ["Write a tweet.", "Write a tweet.", "Review this film at some length.", "Hi"]
RESPONSES = [" So happy!", " Dull, dull, dull.", " A joy.", " Hello there."]
ROWS = [
    {"prompt": "Review it.", "chosen": f" Warm and funny, {n}.", "rejected": f" Dull {'and long ' * n}."}
    for n in range(4)
]
CONFIGS = (
    RewardModelConfig(),
    RewardModelConfig(pooling="mean", head="mlp"),
    RewardModelConfig(head="attention", tasks={"tone": 3}),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("ensemble") / "base")


def adapters(base: str, **settings: Any) -> list[RewardModel]:
    """Members of different ranks, layers, heads and poolings on one base."""
    targets = (["q_proj", "down_proj"], ["v_proj"], "all-linear")
    models = []
    for number, (target, config) in enumerate(zip(targets, CONFIGS, strict=True)):
        torch.manual_seed(number)
        lora = LoraConfig(r=2 + number, target_modules=target, init_lora_weights=False)
        models.append(RewardModel.from_backbone(base, config, lora=lora, **settings))
    return models


def heads(base: str) -> list[RewardModel]:
    """Members that are different heads on one base."""
    models = []
    for number, config in enumerate(CONFIGS):
        torch.manual_seed(number)
        models.append(RewardModel.from_backbone(base, config))
    return models


def scores(model: Any) -> list[float]:
    return model.score(PROMPTS, RESPONSES)


@pytest.mark.parametrize("make", [adapters, heads])
def test_a_member_is_to_the_bit_what_it_is_alone(base: str, tmp_path: Path, make: Any):
    alone = make(base)
    for number, model in enumerate(alone):
        model.normalize(ROWS, "four pairs")
        model.save_pretrained(tmp_path / f"{number}")
    expected = [scores(model) for model in alone]
    in_parts = [[model.score([p], [r])[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)] for model in alone]
    for sources in ([tmp_path / f"{number}" for number in range(3)], alone):
        ensemble = RewardEnsemble(sources, "median")
        assert ensemble.kind == make.__name__
        assert len({id(member.model) for member in ensemble.members}) == 1
        assert ensemble.member_scores(PROMPTS, RESPONSES).tolist() == expected
        assert [scores(member) for member in ensemble.members] == expected
        assert ensemble.score(PROMPTS, RESPONSES) == torch.tensor(expected).median(0).values.tolist()
        for member, wanted in zip(ensemble.members, in_parts, strict=True):
            assert scores(member) == pytest.approx(wanted, rel=1e-6, abs=2e-6)  # float32 in other batches
            assert member.normalization is not None
        assert [scores(model) for model in alone] == expected


@pytest.mark.parametrize("make", [adapters, heads])
def test_a_saved_ensemble_and_each_of_its_members_load_the_same(base: str, tmp_path: Path, make: Any):
    ensemble = RewardEnsemble(make(base), "min")
    ensemble.normalize(ROWS, "four pairs")
    expected, combined = ensemble.member_scores(PROMPTS, RESPONSES), ensemble.score(PROMPTS, RESPONSES)
    ensemble.save_pretrained(tmp_path / "saved")
    loaded = RewardEnsemble.from_pretrained(tmp_path / "saved")
    loaded.save_pretrained(tmp_path / "again")
    for folder in ("saved", "again"):
        again = RewardEnsemble.from_pretrained(tmp_path / folder)
        assert (again.method, again.kind) == ("min", make.__name__)
        assert torch.equal(again.member_scores(PROMPTS, RESPONSES), expected)
        assert again.score(PROMPTS, RESPONSES) == combined
        for number, wanted in enumerate(expected.tolist()):
            member = load_reward_model(tmp_path / folder / f"member-{number}")
            assert type(member) is RewardModel and scores(member) == wanted
