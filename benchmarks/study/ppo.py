"""Over-optimisation by PPO: proxies from few noisy pairs, single and combined, and a judge of the other raters' votes.

Models are trained once and kept in the folder; a PPO run goes on from its last checkpoint. Each run's
`over_optimization.json` has reward, judge and KL of every evaluation.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from benchmarks.study.grids import BAG, FLIPS, MEMBERS
from benchmarks.study.over_optimization import half
from hf_align.data.embedded.ratings import DOMAINS
from hf_align.data.embedded.rows import heldout_sentences, make_prompts
from hf_align.files import ADAPTER_CONFIG
from hf_align.models.ensemble import RewardEnsemble
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.trainers.ppo.trainer import PPOConfig, PPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer

REWARDS = ("single", "mean", "min", "uncertainty_weighted")
GOLD_TEXTS, GROUP = 960, 8
NORMALIZED_ON = 64
"""Pairs."""
FURTHEST = 30.0
"""KL, in nats, at which a run ends."""
STILL, OVER = 1.0, 3
"""A run ends, too, when its KL has risen by less than `STILL` nats over `OVER` evaluations: it has come to rest."""
Rows = list[dict[str, Any]]


class KLLimit(TrainerCallback):
    """Ends the training at the first evaluation whose KL reaches `FURTHEST` or stands still."""

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the KL."""
        kl = [row["eval_objective/kl"] for row in state.log_history if "eval_objective/kl" in row]
        if kl[-1] >= FURTHEST or (len(kl) > OVER and kl[-1] - kl[-1 - OVER] < STILL):
            control.should_training_stop = True
            control.should_save = True


def texts_of(seed: int) -> Rows:
    """The training texts of movies, drawn by the seed."""
    rows: Rows = heldout_sentences("train", DOMAINS[0]).to_list()
    random.Random(seed).shuffle(rows)
    return rows


def noisy_pairs(pairs: int, seed: int) -> Rows:
    """Pairs by the mean of half A, a quarter of them flipped; each text once."""
    texts, rng = [half(text, first=True) for text in texts_of(seed)[: 2 * pairs]], random.Random(f"{seed}/flips")
    rows = []
    for first, second in zip(texts[::2], texts[1::2], strict=True):
        first_wins = (first["mean"] > second["mean"]) != (rng.random() < FLIPS)
        better, worse = (first, second) if first_wins else (second, first)
        rows.append({"prompt": first["prompt"], "chosen": better["response"], "rejected": worse["response"]})
    return rows


def gold_rows(pairs: int, seed: int) -> Rows:
    """Rankings by half B of texts that no proxy sees."""
    texts = [half(text, first=False) for text in texts_of(seed)[2 * pairs : 2 * pairs + GOLD_TEXTS]]
    return [
        {
            "prompt": texts[start]["prompt"],
            "responses": [text["response"] for text in texts[start : start + GROUP]],
            "ratings": [text["ratings"] for text in texts[start : start + GROUP]],
        }
        for start in range(0, len(texts) - GROUP + 1, GROUP)
    ]


def reward_model(base: str, folder: Path, rows: Rows, seed: int) -> RewardModel:
    """Train a reward model, or load the one that is there."""
    if not (folder / ADAPTER_CONFIG).exists():
        args = RewardConfig(
            str(folder),
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            warmup_steps=5,
            num_train_epochs=1,
            per_device_train_batch_size=2 if "responses" in rows[0] else 8,
            margin_mode="none",
            row_tokens=512,
            save_strategy="no",
            logging_steps=10,
            report_to="none",
            seed=seed,
        )
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
        trainer = RewardTrainer(base, args=args, train_dataset=Dataset.from_list(rows), peft_config=lora)
        trainer.train()
        trainer.save_model()
    return load_reward_model(folder)


def run(base: str, out: Path, reward: str, *, pairs: int, episodes: int, seed: int) -> None:
    """Train what is missing, and PPO on it as far as the episodes say.

    Args:
        base: Folder of the language model.
        out: Folder of models and runs.
        reward: One of `REWARDS`.
        pairs: Of the proxies.
        episodes: Responses in all.
        seed: Of texts and flips.
    """
    rows = noisy_pairs(pairs, seed)
    gold = reward_model(base, out / "gold", gold_rows(pairs, seed), seed)
    members = []
    for member in range(1 if reward == "single" else MEMBERS):
        bag = random.Random(f"{seed}/{member}").sample(rows, round(BAG * len(rows)))
        members.append(reward_model(base, out / f"member-{member}", bag, 1000 * seed + member))
    for model in (gold, *members):
        model.normalize(rows[:NORMALIZED_ON], f"the first {NORMALIZED_ON} of the proxies' pairs")
    proxy = members[0] if reward == "single" else RewardEnsemble(members, reward)
    args = PPOConfig(
        str(out / reward),
        total_episodes=episodes,
        num_samples=4,
        num_mini_batches=2,
        per_device_train_batch_size=16,
        num_ppo_epochs=2,
        max_new_tokens=24,
        kl_controller="fixed",
        kl_coef=0.0,
        learning_rate=3e-4,
        value_learning_rate=1e-3,
        per_device_eval_batch_size=32,
        row_tokens=512,
        eval_strategy="steps",
        eval_steps=24,
        eval_on_start=True,
        save_steps=24,
        save_total_limit=1,
        logging_steps=4,
        report_to="none",
        seed=seed,
    )
    trainer = PPOTrainer(
        base,
        args=args,
        train_dataset=make_prompts("train", min(512, episodes), seed),
        eval_dataset=make_prompts("validation", 64, seed),
        reward=proxy,
        judge=gold,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
        callbacks=[KLLimit()],
    )
    checkpoint = get_last_checkpoint(args.output_dir) if Path(str(args.output_dir)).exists() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
