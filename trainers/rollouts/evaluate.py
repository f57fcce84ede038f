"""Evaluation of a policy: a response to each prompt, what it is worth, and its KL from the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from transformers import EvalPrediction
from transformers.trainer_utils import EvalLoopOutput

from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.losses.kl import estimate_kl
from hf_align.rewards import NonFiniteReward, Reward
from hf_align.rollouts import Response
from hf_align.trainers.rollouts.config import RolloutConfig
from hf_align.trainers.rollouts.data import Row
from hf_align.trainers.rollouts.processes import gather_rows
from hf_align.trainers.rollouts.rollout import Rollout
from hf_align.trainers.rollouts.schedule import Purpose, seed_of
from hf_align.trainers.rollouts.scoring import Roles, describe_responses, new_rollout, score_responses, score_tokens

SHOWN = 8
"""Number of samples to store and show."""
KL, KL_FROM_START = "objective/kl", "objective/kl_from_start"
Measured = tuple[dict[str, Tensor], NonFiniteReward | None]
"""Figures `[S]` of responses by metric, NaN where the error says why."""


class Measure(Protocol):
    """What the responses of an evaluation are worth.

    Attributes:
        names: Its metrics; the first is what the training maximises.
    """

    names: list[str]

    def __call__(self, rows: list[Row], responses: list[Response], seed: int) -> Measured:
        """Measure a response to each prompt, which were sampled with this seed."""
        ...


class RewardMeasure:
    """The reward's scores: "reward", and "rewards/NAME" of its parts where it has several."""

    def __init__(self, reward: Reward):
        self.reward = reward
        self.parts = [part.name for part in reward.members] if len(reward.members) > 1 else []
        self.names = ["reward", *(f"rewards/{name}" for name in self.parts)]

    def __call__(self, rows: list[Row], responses: list[Response], seed: int) -> Measured:
        """Score the responses."""
        scores, error = score_responses(rows, responses, self.reward)
        parts = {f"rewards/{name}": scores if error else self.reward.parts[name] for name in self.parts}
        return {"reward": scores, **parts}, error


@dataclass(frozen=True)
class Evaluated:
    """An evaluation.

    Attributes:
        output: Its metrics and predictions.
        samples: Prompt, response, first measure and KL of the first rows, and the judge's score where there is one.
        rows: `[rows]` figures of all rows by metric.
    """

    output: EvalLoopOutput
    samples: list[dict[str, Any]]
    rows: dict[str, NDArray[np.float64]]


@torch.no_grad()
def evaluate_policy(
    data: Dataset,
    config: RolloutConfig,
    roles: Roles,
    measure: Measure,
    *,
    judge: Reward | None = None,
    start: Callable[[Branches], Tensor] | None = None,
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
        roles: Models that sample and score.
        measure: Says what the responses are worth.
        judge: Scores the same responses for the metric "judge".
        start: Gives the log-probs `[N]` of where a reference that moves started, for "objective/kl_from_start".
        accelerator: Distributes the rows over its processes.
        pad_token_id: Fills the rows of batches.
        prefix: Prefix of the metrics' names.
        compute_metrics: Gets predictions `[rows, 2]`, the first measure and KL, for further metrics.
        after_batch: Called after each batch.

    Raises:
        UserError: A reward or judge's score isn't finite on any process, unless `on_nonfinite` is "skip".
    """
    first_measure, *parts = measure.names
    names = [first_measure, KL, "response/length", "response/eos_share", *(["judge"] if judge else []), *parts]
    names += [KL_FROM_START] if start else []
    shown = {first_measure: first_measure, "kl": KL, **({"judge": "judge"} if judge else {})}
    rank, world, size = config.process_index, config.world_size, config.per_device_eval_batch_size
    results: list[torch.Tensor] = []
    error: NonFiniteReward | None = None
    samples: list[tuple[int, dict[str, Any]]] = []  # with their row numbers
    for number, first in enumerate(range(0, len(data), size * world)):
        numbers = range(first + rank * size, min(first + (rank + 1) * size, len(data)))
        # Every process runs the model equally often; one without rows repeats the first.
        rows = [data[row] for row in numbers] or [data[0]]
        seed = seed_of(config.seed, Purpose.EVALUATION, number, rank)
        responses = roles.sample(rows, 1, seed)
        measured, failure = measure(rows, responses, seed)
        error = error or failure
        rollout = new_rollout(Rollout, rows, responses, measured[first_measure], num_samples=1)
        score_tokens(rollout, config, roles, len(rows), pad_token_id)
        columns = {**measured, **describe_responses(rollout)}
        if start is not None:
            columns[KL_FROM_START] = _kl_from(start, rollout, config, pad_token_id)
        if judge is not None:
            columns["judge"], failure = score_responses(rows, responses, judge)
            error = error or failure
        results.append(torch.stack([columns[name] for name in names], 1)[: len(numbers)])
        if first < SHOWN:
            for index, (place, row, response) in enumerate(zip(numbers, rows, responses, strict=False)):
                figures = {key: float(columns[name][index]) for key, name in shown.items()}
                samples.append((place, {"prompt": row["prompt"], "response": response.text, **figures}))
        after_batch()
    values = torch.cat(gather_rows(torch.cat(results), accelerator)).double().numpy()
    scores = values[:, [place for place, name in enumerate(names) if name in (first_measure, "judge")]]
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


def _kl_from(start: Callable[[Branches], Tensor], rollout: Rollout, config: RolloutConfig, pad_token_id: int) -> Tensor:
    """KL `[S]` of each response from where the reference started, estimated from its tokens."""
    every = slice(0, len(rollout.response_ids))
    branches = rollout.branches(every, pad_token_id=pad_token_id, row_tokens=config.row_tokens)
    logps = rollout.spread(start(branches.to(config.device)).float().cpu())
    return estimate_kl(rollout.tokens["old_logps"], logps).sum(1)
