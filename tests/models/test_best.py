"""`load_best`: policy, value head and reward model that belong together, by any metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from hf_align import PolicyWithValueHead, RewardEnsemble, RewardModel, load_best, load_policy, load_reward_model
from hf_align.errors import UserError
from hf_align.tracking import RunRecord


def reward_in(folder: Path, model: str) -> Path:
    torch.manual_seed(0)
    load_reward_model(model).save_pretrained(folder)
    return folder


def test_the_parts_of_the_best_checkpoint_are_loaded(tiny_model_dir: str, tmp_path: Path):
    reward, out = reward_in(tmp_path / "reward", tiny_model_dir), tmp_path / "run"
    with RunRecord.start(out, "ppo") as record:
        session = record.session(prefix="ppo")
        for step, score in ((1, 0.2), (2, 0.8), (3, 0.5)):
            folder = out / f"checkpoint-{step}"
            policy = PolicyWithValueHead(load_policy(tiny_model_dir))
            torch.nn.init.constant_(cast(Any, policy.value_head).weight, float(step))
            policy.save_pretrained(folder)
            for file in Path(tiny_model_dir).glob("tokenizer*"):
                (folder / file.name).write_bytes(file.read_bytes())
            session.log(step, {"eval_reward": score})
            session.checkpoint(folder, step, {"policy": str(folder), "value": str(folder), "reward": str(reward)})
    best = load_best(out, "eval_reward")
    assert best.checkpoint.step == 2 and best.value is not None and best.policy is best.value.model
    assert bool((cast(Any, best.value.value_head).weight == 2).all()) and len(best.tokenizer) == 260
    assert isinstance(best.reward, RewardModel)
    assert best.reward.score(["a"], ["b"]) == load_reward_model(reward).score(["a"], ["b"])
    assert load_best(out, "eval_reward", greater_is_better=False).checkpoint.step == 1


def test_a_reward_models_run_has_no_policy(tiny_model_dir: str, tmp_path: Path):
    with RunRecord.start(tmp_path, "reward") as record:
        session = record.session(prefix="rm")
        members = [reward_in(tmp_path / name, tiny_model_dir) for name in ("a", "b")]
        RewardEnsemble([load_reward_model(member) for member in members]).save_pretrained(tmp_path / "all")
        session.log(1, {"eval_accuracy": 0.5})
        session.checkpoint(members[0], 1, {"reward": str(members[0])})
        session.log(2, {"eval_accuracy": 0.7})
        session.checkpoint(tmp_path / "all", 2, {"reward": str(tmp_path / "all")})
    with pytest.raises(UserError):
        load_best(tmp_path, "eval_loss")
    best = load_best(tmp_path, "eval_accuracy")
    assert (best.policy, best.value, best.checkpoint.step) == (None, None, 2)
    assert isinstance(best.reward, RewardEnsemble) and best.tokenizer is best.reward.tokenizer
    assert isinstance(load_best(tmp_path, "eval_accuracy", greater_is_better=False).reward, RewardModel)
