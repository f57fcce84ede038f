"""Initial values, and the device of a reward model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from hf_align.errors import UserError
from hf_align.layout.branches import build_branches
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.reward_config import RewardModelConfig
from hf_align.rewards import AdapterReward
from hf_align.trainers.ppo.trainer import PPOTrainer
from tests.tiny import save_tiny, tiny_tokenizer
from tests.trainers.ppo.test_trainer import ppo

ROWS = [{"prompt": "hello"}, {"prompt": "good morning"}, {"prompt": "yes"}]


def lora() -> LoraConfig:
    return LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)


def trainer_on(folder: str, out: Path, reward: Any, **changes: Any) -> PPOTrainer:
    own = {
        "model": folder,
        "train_dataset": ROWS,
        "processing_class": tiny_tokenizer(),
        "reward": reward,
        "peft_config": lora(),
    }
    return ppo(out, own, max_new_tokens=6, max_steps=1, **changes)


@pytest.mark.parametrize("as_object", [False, True], ids=["on the base", "with its own base"])
def test_values_start_as_scores_of_the_unfinished_responses(tmp_path: Path, as_object: bool):
    folder = save_tiny(tmp_path / "base")
    RewardModel.from_backbone(folder, lora=lora()).save_pretrained(tmp_path / "reward")
    reward = load_reward_model(tmp_path / "reward")
    given = reward if as_object else str(tmp_path / "reward")
    trainer = trainer_on(folder, tmp_path / "out", given, value_model="adapter", value_init="reward")
    assert isinstance(trainer.reward.members[0].source, RewardModel if as_object else AdapterReward)
    trainer.train()
    rollout = trainer.rollout
    assert rollout is not None
    for row in range(4):
        prompt, response = rollout.prompt_ids[row], rollout.response_ids[row]
        for place in range(len(response)):
            so_far = [*prompt, *response[:place]]
            score = reward(build_branches([(so_far[:-1], [so_far[-1:]])], pad_token_id=259))
            assert float(rollout.tokens["values"][row, place]) == pytest.approx(score.item(), abs=1e-4)
    assert rollout.tokens["values"].abs().max() > 0.05


def test_values_start_at_zero_unless_asked(tmp_path: Path):
    folder = save_tiny(tmp_path / "base")
    reward = RewardModel.from_backbone(folder)
    for init, actual in (("zero", False), ("reward", True)):
        trainer = trainer_on(folder, tmp_path / "out", reward, value_init=init)
        trainer.train()
        assert trainer.rollout is not None
        assert bool(trainer.rollout.tokens["values"].any()) == actual


def test_what_values_cant_start_from_is_named(tmp_path: Path):
    folder = save_tiny(tmp_path / "base")
    reward = RewardModel.from_backbone(folder)
    other = RewardModel.from_backbone(folder, RewardModelConfig(head="mlp"))

    def length(prompts: list[str], responses: list[str]) -> list[float]:
        return [float(len(text)) for text in responses]

    for given, message in (
        (length, "one reward model as the whole reward.*not 1 x length"),
        ([(0.5, reward)], "not 0.5 x RewardModel"),
        ([reward, length], "not 1 x RewardModel, 1 x length"),
        (other, "linear value head can't start from a reward model with a mlp head"),
    ):
        with pytest.raises(UserError, match=message):
            trainer_on(folder, tmp_path / "out", given, value_init="reward")


class Movable(RewardModel):
    """A reward model that records where it is moved."""

    places: tuple[Any, ...] = ()

    def to(self, *args: Any, **kwargs: Any) -> Any:
        self.places = (*self.places, *args)
        return super().to(*args, **kwargs)


def test_a_reward_model_object_comes_to_the_device_of_the_training(tmp_path: Path):
    folder = save_tiny(tmp_path / "base")
    reward = Movable.from_backbone(folder)
    assert isinstance(reward, Movable) and not reward.places
    trainer_on(folder, tmp_path / "out", [(1.0, reward), (0.1, lambda prompts, responses: [0.0] * len(prompts))])
    assert reward.places == (torch.device("cpu"),)
