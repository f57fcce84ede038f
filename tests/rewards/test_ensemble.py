"""Ensembles as rewards: on the policy's base they score as they do alone, by every method."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig

from hf_align import RewardEnsemble, RewardModel, load_policy
from hf_align.errors import UserError
from hf_align.models.aggregation import FITTED, RULES
from hf_align.models.value import PolicyWithValueHead
from hf_align.models.weight_average import weight_average
from hf_align.models.wrapper import unwrapped
from hf_align.rewards import AdapterReward, as_reward
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.data import start_values
from hf_align.trainers.rollouts.data import ready_scores
from tests.tiny import save_tiny, tiny_tokenizer

PROMPTS = ["Write a tweet.", "Write a tweet.", "Review a film."]
RESPONSES = [" So happy!", " Dull.", " A joy."]
ROWS = [{"prompt": f"Review {n % 10}.", "chosen": f" Warm, {n}.", "rejected": f" Dull, {n * n}."} for n in range(20)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def ensemble(base: str) -> RewardEnsemble:
    """Three normalised adapters on one base."""
    members = []
    for number in range(3):
        torch.manual_seed(number)
        targets = ["q_proj", "down_proj"]
        lora = LoraConfig(r=2 + number % 2, lora_alpha=3, target_modules=targets, init_lora_weights=False)
        members.append(RewardModel.from_backbone(base, lora=lora))
    ensemble = RewardEnsemble(members)
    ensemble.normalize(ROWS, "twenty pairs")
    return ensemble


def policy(base: str, lora: bool = True) -> PolicyWithValueHead:
    torch.manual_seed(3)
    config = LoraConfig(target_modules="all-linear", init_lora_weights=False) if lora else None
    return PolicyWithValueHead(load_policy(base, lora=config), value_model="adapter" if lora else "separate").train()


def shared(reward: Any, model: Any) -> list[str]:
    """Names of the adapters that rewards have on a policy whose own is active."""
    inner: Any = unwrapped(model, keep_peft=True)
    assert inner.active_adapters == ["default"]
    source = reward.members[0].source
    assert {id(member.model) for member in getattr(source, "members", [source])} == {id(inner)}
    return [name for name in inner.peft_config if "reward" in name]


def test_on_the_policy_s_base_an_ensemble_scores_as_alone_by_every_rule(
    base: str, ensemble: RewardEnsemble, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"trim": 0.4, "uncertainty_coef": 0.5}
    RewardEnsemble(ensemble.members, **settings).save_pretrained(tmp_path / "three")
    saved, model = json.loads((tmp_path / "three/ensemble.json").read_text()), policy(base)
    for number, method in enumerate(RULES, start=1):
        alone = RewardEnsemble(ensemble.members, method, **settings)
        (tmp_path / "three/ensemble.json").write_text(json.dumps({**saved, "method": method}))
        expected, members = alone.score(PROMPTS, RESPONSES), alone.member_scores(PROMPTS, RESPONSES)
        reward = as_reward(tmp_path / "three", policy=model, tokenizer=tiny_tokenizer())
        assert reward(PROMPTS, RESPONSES).tolist() == pytest.approx(expected, abs=1e-4), method
        assert len(shared(reward, model)) == 3 * number
        torch.testing.assert_close(reward.details["std"], members.std(0, correction=0), atol=1e-4, rtol=0)
        mean, variance = members.mean(0), members.var(0, correction=0)
        penalties = {"min": mean - members.amin(0), "uncertainty_weighted": 0.5 * variance}
        assert ("penalty" in reward.details) == (method in penalties)
        if method in penalties:
            torch.testing.assert_close(reward.details["penalty"], penalties[method], atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", FITTED)
def test_on_the_policy_s_base_a_fitted_ensemble_scores_as_alone(
    method: str, base: str, ensemble: RewardEnsemble, tmp_path: Path
) -> None:
    alone = RewardEnsemble(ensemble.members, method).fit(ROWS)
    alone.save_pretrained(tmp_path / "three")
    model = policy(base)
    reward = as_reward(tmp_path / "three", policy=model)
    assert reward(PROMPTS, RESPONSES).tolist() == pytest.approx(alone.score(PROMPTS, RESPONSES), abs=1e-4)
    assert len(shared(reward, model)) == 3 and set(reward.details) == {"std"}


def test_on_the_policy_s_base_a_weight_average_is_one_adapter(
    base: str, ensemble: RewardEnsemble, tmp_path: Path
) -> None:
    alone = RewardEnsemble(ensemble.members, "weight_average", [0.5, 0.25, 0.25])
    alone.save_pretrained(tmp_path / "three")
    model = policy(base)
    reward = as_reward(tmp_path / "three", policy=model)
    assert reward(PROMPTS, RESPONSES).tolist() == pytest.approx(alone.score(PROMPTS, RESPONSES), abs=1e-4)
    source = reward.members[0].source
    assert isinstance(source, AdapterReward) and source.averages == 3 and len(shared(reward, model)) == 1
    assert reward.details == {}, "one model, whose members aren't scored"
    args = PPOConfig(str(tmp_path / "out"), value_init="reward", use_cpu=True, bf16=False)
    start_values(model, ready_scores(reward, model, tiny_tokenizer(), args, nullcontext))
    with pytest.raises(UserError, match="needs one reward model as the whole reward"):
        start_values(policy(base), ready_scores(ensemble, policy(base), tiny_tokenizer(), args, nullcontext))


def test_members_that_don_t_fit_the_policy_s_base_have_their_own(
    base: str, ensemble: RewardEnsemble, tmp_path: Path
) -> None:
    torch.manual_seed(9)
    other = RewardModel.from_backbone(save_tiny(tmp_path / "other", seed=5))
    mixed = RewardEnsemble([*ensemble.members[:2], other])
    mixed.normalize(ROWS, "twenty pairs")
    mixed.save_pretrained(tmp_path / "mixed")
    expected = pytest.approx(mixed.score(PROMPTS, RESPONSES), abs=1e-4)
    for model, kinds in ((policy(base), [AdapterReward] * 2 + [RewardModel]), (policy(base, lora=False), None)):
        reward = as_reward(str(tmp_path / "mixed"), policy=model)
        assert reward(PROMPTS, RESPONSES).tolist() == expected
        kinds = kinds or [RewardModel] * 3
        for member, kind in zip(reward.members[0].source.members, kinds, strict=True):
            assert isinstance(member, kind)
    average = RewardEnsemble(ensemble.members[:2], "weight_average")
    average.save_pretrained(tmp_path / "average")
    given = as_reward(str(tmp_path / "average"), policy=policy(base, lora=False))
    assert given(PROMPTS, RESPONSES).tolist() == pytest.approx(
        weight_average(ensemble.members[:2]).score(PROMPTS, RESPONSES), abs=1e-4
    )


def test_ensembles_are_parts_of_a_weighted_list(base: str, ensemble: RewardEnsemble) -> None:
    def letters(prompts: list[str], responses: list[str]) -> list[float]:
        return [float(len(response)) for response in responses]

    lowest = RewardEnsemble(ensemble.members, "min")
    expected = [2 * a - 0.1 * len(b) for a, b in zip(lowest.score(PROMPTS, RESPONSES), RESPONSES, strict=True)]
    reward = as_reward([(2.0, lowest), (-0.1, letters)])
    assert reward(PROMPTS, RESPONSES).tolist() == pytest.approx(expected, abs=1e-4)
    assert set(reward.parts) == {"RewardEnsemble", "letters"} and set(reward.details) == {"std", "penalty"}
    several = as_reward([lowest, ensemble])
    several(PROMPTS, RESPONSES)
    assert set(several.details) == {"RewardEnsemble/std", "RewardEnsemble/penalty", "RewardEnsemble#2/std"}


def test_sampled_ids_are_scored_where_all_members_read_the_policy_s_tokens(
    base: str, ensemble: RewardEnsemble, tmp_path: Path
) -> None:
    tokenizer = tiny_tokenizer()
    prompt_ids, response_ids = ([tokenizer(text)["input_ids"] for text in texts] for texts in (PROMPTS, RESPONSES))
    reward = as_reward(ensemble, tokenizer=tokenizer)
    columns: Any = {"prompt_ids": prompt_ids, "response_ids": response_ids, "finished": [False] * 3}
    scores = reward(PROMPTS, [" other"] * 3, **columns)
    assert scores.tolist() == pytest.approx(ensemble.score_ids(prompt_ids, response_ids), abs=1e-5)
    assert len(reward.details["std"]) == 3
    swapped = tiny_tokenizer()
    swapped.eos_token = swapped.convert_ids_to_tokens(65)
    assert not cast(Any, as_reward(ensemble, tokenizer=swapped).members[0].scorer).takes_ids
