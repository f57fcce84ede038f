"""Tiny trained models of every kind, saved in folders."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig

from hf_align.models.reward import RewardModel
from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from hf_align.trainers.sft import SFTConfig, SFTTrainer
from tests.trainers.pairs import options, pairs

PPO = {
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "num_samples": 2,
    "num_mini_batches": 1,
    "num_ppo_epochs": 1,
    "max_new_tokens": 4,
}


def prompts(count: int = 4) -> Dataset:
    return Dataset.from_list([{"prompt": [{"role": "user", "content": f"Review {n}."}]} for n in range(count)])


def shorter(prompts: list[str], responses: list[str], **columns: Any) -> list[float]:
    return [-float(len(response)) for response in responses]


def make_trainer(
    kind: str, base: Any, out: Path, *, lora: bool = True, quantization: str | None = None, **changes: Any
) -> Any:
    """A trainer of a kind that moves its weights far in one step."""
    torch.manual_seed(0)
    settings = options(out, **{"learning_rate": 5.0 if lora else 0.5, "max_steps": 2, **changes})
    own: dict[str, Any] = {
        "peft_config": LoraConfig(r=2, lora_alpha=8, target_modules="all-linear") if lora else None,
        "quantization_config": quantization,
    }
    base = str(base) if isinstance(base, Path) else base
    if kind == "sft":
        rows = Dataset.from_list([{"prompt": "Review.", "completion": f" Film {n}."} for n in range(8)])
        return SFTTrainer(base, SFTConfig(**settings), rows, **own)
    if kind == "ppo":
        return PPOTrainer(
            base,
            args=PPOConfig(**{**PPO, **settings}),
            train_dataset=prompts(8),
            eval_dataset=prompts(),
            reward=shorter,
            **own,
        )
    trainer, config = {
        "reward": (RewardTrainer, RewardConfig),
        "dpo": (DPOTrainer, DPOConfig),
        "ipo": (IPOTrainer, IPOConfig),
    }[kind]
    return trainer(
        base, args=config(**settings), train_dataset=pairs(margin=kind == "reward"), eval_dataset=pairs(4), **own
    )


def trained(kind: str, base: Any, out: Path, **changes: Any) -> Any:
    """Trained, evaluated and saved in `out`."""
    trainer = make_trainer(kind, base, out, **changes)
    trainer.train()
    trainer.evaluate()
    trainer.save_model()
    return trainer


@torch.no_grad()
def next_logps(model: Any) -> torch.Tensor:
    """Log-probs of every next token of a fixed text: `[1, T, V]`."""
    ids = torch.arange(20, 60)[None]
    return model.eval()(input_ids=ids).logits.float().log_softmax(-1)


def same_but_for_rounding(model: Any, expected: Any) -> None:
    """Assert that both give the same numbers up to twenty times the float32 rounding of `expected` on this machine."""
    texts = [
        "A warm, funny film, too long by half."[: 2 + n] for n in range(32)
    ]  # two scores would not suffice to measure rounding

    def numbers(m: Any) -> torch.Tensor:
        return torch.tensor(m.score(["Review."] * 32, texts)) if isinstance(m, RewardModel) else next_logps(m)

    wanted = numbers(expected)
    rounding = (numbers(copy.deepcopy(expected).double()) - wanted).abs().max()
    torch.testing.assert_close(numbers(model), wanted, atol=20 * float(rounding), rtol=0)


PAIRS = (["Review a movie.", "Write a tweet."], ["A warm, funny film.", "Bad."])


def scores(model: Any) -> list[float]:
    return model.score(*PAIRS)
