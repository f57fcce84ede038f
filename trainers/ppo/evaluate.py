"""Evaluating a policy: a response to each prompt, its score and its distance from the reference."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from transformers import EvalPrediction
from transformers.trainer_utils import EvalLoopOutput

from hf_align.trainers.ppo.experience import describe_responses, sample, score
from hf_align.trainers.ppo.processes import gather_rows
from hf_align.trainers.ppo.schedule import Purpose, seed_of

if TYPE_CHECKING:
    from hf_align.trainers.ppo.trainer import PPOTrainer

SHOWN = 8
"""Samples that are kept and shown."""
NAMES = {
    "objective/scores": "reward",
    "objective/kl": "objective/kl",
    "response/length": "response/length",
    "response/eos_share": "response/eos_share",
}


@torch.no_grad()
def evaluate_policy(trainer: PPOTrainer, data: Dataset, prefix: str) -> EvalLoopOutput:
    """Sample a response to each prompt, the rows shared out among the processes, and average over all rows.

    The random numbers are the run's seed's, the same at every evaluation, and training's are left alone.
    """
    args = trainer.args
    model = cast(nn.Module, trainer.model_wrapped)
    training = model.training
    model.train()  # scored as in training: without dropout it changes nothing but quantised kernels
    rank, world, size = args.process_index, args.world_size, args.per_device_eval_batch_size
    results: list[torch.Tensor] = []
    samples: list[tuple[int, dict[str, Any]]] = []  # with their rows' numbers
    for number, first in enumerate(range(0, len(data), size * world)):
        own = range(first + rank * size, min(first + (rank + 1) * size, len(data)))
        # Every process runs the model equally often; one without rows of its own repeats the first.
        rows = [data[row] for row in own] or [data[0]]
        responses = sample(trainer, model, rows, 1, seed_of(args.seed, Purpose.EVALUATION, number, rank))
        rollout = score(trainer, model, rows, responses, 1, len(rows))
        found = describe_responses(rollout)
        results.append(torch.stack([found[name] for name in NAMES], 1)[: len(own)])
        if first < SHOWN:
            found_rows = zip(own, rows, responses, rollout.scores, found["objective/kl"], strict=False)
            samples += [
                (place, {"prompt": row["prompt"], "response": one.text, "reward": float(value), "kl": float(kl)})
                for place, row, one, value, kl in found_rows
            ]
        trainer.control = trainer.callback_handler.on_prediction_step(args, trainer.state, trainer.control)
    model.train(training)
    values = torch.cat(gather_rows(torch.cat(results), trainer.accelerator)).double().numpy()
    samples = sorted(gather_object(samples) if world > 1 else samples, key=itemgetter(0))
    trainer.eval_samples = [sample for _, sample in samples[:SHOWN]]
    metrics = {f"{prefix}_{name}": float(mean) for name, mean in zip(NAMES.values(), values.mean(0), strict=True)}
    predictions = values[:, :2].astype(np.float32)
    if trainer._user_metrics is not None:
        own_metrics = trainer._user_metrics(EvalPrediction(predictions, np.zeros(len(values))))
        metrics.update({f"{prefix}_{name}": value for name, value in own_metrics.items()})
    return EvalLoopOutput(predictions, None, metrics, len(values))
