"""Evaluation of a policy: a response to each prompt, its score and its KL from the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from numpy.typing import NDArray
from transformers import EvalPrediction
from transformers.trainer_utils import EvalLoopOutput

from hf_align.errors import UserError
from hf_align.rewards import NonFiniteReward, Reward
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


@dataclass(frozen=True)
class Evaluated:
    """An evaluation.

    Attributes:
        output: Its metrics and predictions.
        samples: Prompt, response, reward and KL of the first rows, and the judge's score where there is a judge.
        rows: `[rows]` figures of all rows by metric.
    """

    output: EvalLoopOutput
    samples: list[dict[str, Any]]
    rows: dict[str, NDArray[np.float64]]


@torch.no_grad()
def evaluate_policy(
    data: Dataset,
    config: PPOConfig,
    roles: Roles,
    *,
    judge: Reward | None = None,
    accelerator: Accelerator,
    pad_token_id: int,
    prefix: str,
    compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None,
    after_batch: Callable[[], None],
) -> Evaluated:
    """Sample a response to each prompt, with the rows distributed over the processes, and average over all rows.

    Random numbers depend on the run's seed, are the same at every evaluation, and don't affect training's.

    Args:
        data: Rows with `prompt_ids`.
        config: Options of the run.
        roles: Models that sample, reward and score.
        judge: Scores the same responses for the metric "judge".
        accelerator: Distributes the rows over its processes.
        pad_token_id: Fills the rows of batches.
        prefix: Prefix of the metrics' names.
        compute_metrics: Gets predictions `[rows, 2]`, score and KL, for further metrics.
        after_batch: Called after each batch.

    Raises:
        UserError: A reward or judge's score isn't finite on any process, unless `on_nonfinite` is "skip".
    """
    names = [*NAMES.values(), *(["judge"] if judge else [])]
    if len(roles.reward.members) > 1:
        names += [f"rewards/{part.name}" for part in roles.reward.members]
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
        failed = rollout.reward_error is not None  # then all its scores are NaN
        parts = {
            f"rewards/{part.name}": rollout.scores if failed else roles.reward.parts[part.name]
            for part in roles.reward.members
        }
        score_tokens(rollout, config, roles, len(rows), pad_token_id)
        figures = describe_responses(rollout)
        columns = {**parts, **{shown: figures[name] for name, shown in NAMES.items()}}
        if judge is not None:
            judged = reward_responses(rows, responses, judge, num_samples=1, kl_coef=0.0)
            error, columns["judge"] = error or judged.reward_error, judged.scores
        results.append(torch.stack([columns[name] for name in names], 1)[: len(numbers)])
        if first < SHOWN:
            scored = {"reward": "reward", "kl": "objective/kl", **({"judge": "judge"} if judge else {})}
            samples += [
                (
                    place,
                    {
                        "prompt": row["prompt"],
                        "response": response.text,
                        **{key: float(columns[name][index]) for key, name in scored.items()},
                    },
                )
                for index, (place, row, response) in enumerate(zip(numbers, rows, responses, strict=False))
            ]
        after_batch()
    values = torch.cat(gather_rows(torch.cat(results), accelerator)).double().numpy()
    scores = values[:, [place for place, name in enumerate(names) if name in ("reward", "judge")]]
    if config.on_nonfinite == "stop" and not np.isfinite(scores).all():  # on all processes
        raise error or UserError("A reward gave NaN or an infinite number to a response of another process.")
    samples = sorted(gather_object(samples) if world > 1 else samples, key=itemgetter(0))
    metrics = {f"{prefix}_{name}": float(mean) for name, mean in zip(names, values.mean(0), strict=True)}
    predictions = values[:, :2].astype(np.float32)
    if compute_metrics is not None:
        further = compute_metrics(EvalPrediction(predictions, np.zeros(len(values))))
        metrics.update({f"{prefix}_{name}": value for name, value in further.items()})
    output = EvalLoopOutput(predictions, None, metrics, len(values))
    return Evaluated(output, [sample for _, sample in samples[:SHOWN]], dict(zip(names, values.T, strict=True)))
