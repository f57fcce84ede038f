"""Evaluation of a policy: a response to each prompt, its score and its KL from the reference."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import EvalPrediction
from transformers.trainer_utils import EvalLoopOutput

from hf_align.errors import UserError
from hf_align.rewards import NonFiniteReward
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.experience import Roles, describe_responses, reward_responses, score_tokens
from hf_align.trainers.ppo.processes import gather_rows
from hf_align.trainers.ppo.schedule import Purpose, seed_of

SHOWN = 8
"""Number of samples to store and show."""
NAMES = {
    "objective/scores": "reward",
    "objective/kl": "objective/kl",
    "response/length": "response/length",
    "response/eos_share": "response/eos_share",
}


@torch.no_grad()
def evaluate_policy(
    data: Dataset,
    config: PPOConfig,
    roles: Roles,
    *,
    accelerator: Accelerator,
    pad_token_id: int,
    prefix: str,
    compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None,
    after_batch: Callable[[], None],
) -> tuple[EvalLoopOutput, list[dict[str, Any]]]:
    """Sample a response to each prompt, with the rows distributed over the processes, and average over all rows.

    Random numbers depend on the run's seed, are the same at every evaluation, and don't affect training's.

    Args:
        data: Rows with `prompt_ids`.
        config: Options of the run.
        roles: Models that sample, reward and score.
        accelerator: Distributes the rows over its processes.
        pad_token_id: Fills the rows of batches.
        prefix: Prefix of the metrics' names.
        compute_metrics: Gets predictions `[rows, 2]`, score and KL, for further metrics.
        after_batch: Called after each batch.

    Raises:
        UserError: A reward isn't finite on any process, unless `on_nonfinite` is "skip".

    Returns:
        The metrics, and prompt, response, reward and KL of the first rows.
    """
    rank, world, size = config.process_index, config.world_size, config.per_device_eval_batch_size
    results: list[torch.Tensor] = []
    error: NonFiniteReward | None = None
    samples: list[tuple[int, dict[str, Any]]] = []  # with their row numbers
    for number, first in enumerate(range(0, len(data), size * world)):
        numbers = range(first + rank * size, min(first + (rank + 1) * size, len(data)))
        # Every process runs the model equally often; one without rows repeats the first.
        rows = [data[row] for row in numbers] or [data[0]]
        responses = roles.sample(rows, 1, seed_of(config.seed, Purpose.EVALUATION, number, rank))
        rollout = reward_responses(rows, responses, roles.reward, num_samples=1, kl_coef=0.0)
        error = error or rollout.reward_error
        score_tokens(rollout, config, roles, len(rows), pad_token_id)
        figures = describe_responses(rollout)
        results.append(torch.stack([figures[name] for name in NAMES], 1)[: len(numbers)])
        if first < SHOWN:
            found_rows = zip(numbers, rows, responses, rollout.scores, figures["objective/kl"], strict=False)
            samples += [
                (place, {"prompt": row["prompt"], "response": one.text, "reward": float(value), "kl": float(kl)})
                for place, row, one, value, kl in found_rows
            ]
        after_batch()
    values = torch.cat(gather_rows(torch.cat(results), accelerator)).double().numpy()
    if config.on_nonfinite == "stop" and not np.isfinite(values[:, 0]).all():  # on all processes
        raise error or UserError("A reward gave NaN or an infinite number to a response of another process.")
    samples = sorted(gather_object(samples) if world > 1 else samples, key=itemgetter(0))
    metrics = {f"{prefix}_{name}": float(mean) for name, mean in zip(NAMES.values(), values.mean(0), strict=True)}
    predictions = values[:, :2].astype(np.float32)
    if compute_metrics is not None:
        further = compute_metrics(EvalPrediction(predictions, np.zeros(len(values))))
        metrics.update({f"{prefix}_{name}": value for name, value in further.items()})
    return EvalLoopOutput(predictions, None, metrics, len(values)), [sample for _, sample in samples[:SHOWN]]
