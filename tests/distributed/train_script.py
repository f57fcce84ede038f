"""Trains a tiny model on one or two processes: `train_script.py dpo|reward|ranking|sft|stream MODEL OUT BATCH`."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

if "RANK" in os.environ:  # a process of its own: imports create no garbage, and collecting takes a fifth of their time
    gc.disable()

import torch
from datasets import Dataset
from transformers import Trainer

from hf_align.models.loading import load_policy
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.metrics import RowMetrics
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from tests.trainers.pairs import options, pairs

kind, model_dir, out, batch = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
common = options(
    out,
    per_device_train_batch_size=batch,
    per_device_eval_batch_size=2,
    max_steps=4,
    learning_rate=0.01,
    gradient_accumulation_steps=2,
)
rows = pairs(8, margin=kind == "reward", weights=[1, 2, 1, 1, 0.5, 1, 1, 3])
rows = rows.select([*range(8), 1])  # an epoch ends with a batch of one: the other process has nothing but padding
held_out = pairs(7, margin=kind == "reward")  # odd: one process gets a row twice, which must not count twice


def ranked(data: Dataset) -> Dataset:
    """The pairs with up to two more responses, ratings, and labels of some responses."""
    made = []
    for number, row in enumerate(data.to_list()):
        texts = [row[side][0]["content"] for side in ("chosen", "rejected")]
        texts += ["Not bad.", "Bad, I say."][: number % 3]
        made.append(
            {"prompt": row["prompt"], "responses": texts, "weight": row.get("weight", 1.0)}
            | {"ratings": [[3 - k, (number + k) % 4] for k in range(len(texts))]}
            | {"helpful": [0.5 * k if number % 3 else None for k in range(len(texts))]}
            | {"tone": [number % 3] * len(texts) if number in (1, 6) else None}
        )
    return Dataset.from_list(made)


torch.manual_seed(0)
trainer: Trainer
if kind == "sft":
    from hf_align.trainers.sft import SFTConfig, SFTTrainer  # TRL takes seconds to import

    demonstrations = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows.to_list()]
    trainer = SFTTrainer(model_dir, SFTConfig(**common), Dataset.from_list(demonstrations))
elif kind == "dpo":
    config = DPOConfig(**common, sync_ref_model=True, ref_model_sync_steps=2)  # the same moves on all processes
    trainer = DPOTrainer(load_policy(model_dir), args=config, train_dataset=rows, eval_dataset=held_out)
elif kind == "stream":
    trainer = DPOTrainer(
        load_policy(model_dir),
        args=DPOConfig(**common),
        train_dataset=rows.to_iterable_dataset(num_shards=2).shuffle(seed=0, buffer_size=3),
        eval_dataset=held_out,
    )
elif kind == "ranking":  # rows of other numbers of responses, labels that few have, votes drawn by row and epoch
    config = RewardModelConfig(tasks={"helpful": "regression", "tone": 3})
    trainer = RewardTrainer(
        RewardModel.from_backbone(model_dir, config),
        args=RewardConfig(**common, label_mode="draw", task_weights={"helpful": 0.5}),
        train_dataset=ranked(rows),
        eval_dataset=ranked(held_out),
    )
else:
    model = RewardModel.from_backbone(model_dir)
    trainer = RewardTrainer(model, args=RewardConfig(**common), train_dataset=rows, eval_dataset=held_out)
trainer.train()
timings = ("runtime", "per_second", "flos", "epoch")
evaluated = {} if kind == "sft" else trainer.evaluate()
result = {key: value for key, value in evaluated.items() if not any(word in key for word in timings)}
trainer.save_model()
history = [log for log in trainer.state.log_history if "loss" in log]
metrics = RowMetrics()
metrics.add({"digits": torch.tensor([2.0**25, 1.0 + trainer.accelerator.process_index])})
digits = metrics.pop()["digits"]
broken: list[dict[str, Any]] = []
if kind == "reward" and trainer.accelerator.num_processes == 2:  # here since starting processes takes longest
    from tests.trainers.injections import Injection, report

    injections = [
        Injection("dpo", "constant", 1, 1, 1),
        Injection("ppo", "reward", 0, 0, 1),
        Injection("dpo", "late", 1, 0, 1),
    ]
    broken = report(injections, out / "injections")
if trainer.is_world_process_zero():
    logs = {"history": history, "eval": result, "digits": digits, "processes": trainer.accelerator.num_processes}
    logs["injections"] = broken
    (out / "logs.json").write_text(json.dumps(logs))
# At the interpreter's exit, gloo's threads sometimes outlive the group and abort the process.
trainer.accelerator.wait_for_everyone()
trainer.accelerator.end_training()
