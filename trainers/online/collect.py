"""A rollout of online DPO: responses of the policy, opinions on them, and pairs.

    collect                  a rollout from the prompts of one process
      Roles.sample             1  responses
      Label                    2  opinions on them: a reward's scores or a judge's preferences
      choose_pairs             3  pairs, without ties
      score_tokens             4  log-probs and entropy, batch by batch: Roles.policy, Roles.reference
      describe                 5  metrics

Notation: S responses, D prompts, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from hf_align.trainers.nonfinite import nonfinite_everywhere
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.labels import Label, Opinions
from hf_align.trainers.online.pairs import Chosen, choose_pairs
from hf_align.trainers.online.rollout import PairRollout
from hf_align.trainers.rollouts.data import Row
from hf_align.trainers.rollouts.schedule import Purpose, group_permutation, seed_of
from hf_align.trainers.rollouts.scoring import Roles, describe_responses, kept_row, new_rollout, score_tokens


def collect(
    rows: list[Row],
    number: int,
    config: OnlineDPOConfig,
    roles: Roles,
    label: Label,
    *,
    accelerator: Accelerator,
    pad_token_id: int,
    timed: Callable[[str], AbstractContextManager[Any]] = nullcontext,
) -> tuple[PairRollout, dict[str, Tensor]]:
    """Make rollout `number` of this process.

    Args:
        rows: The prompts, `config.num_samples` responses each.
        number: Number of the rollout, from 0, which seeds its draws.
        config: Options of the run.
        roles: Who samples, and scores tokens.
        label: Who has an opinion on responses.
        accelerator: Connection of the processes.
        pad_token_id: Fills the rows of batches.
        timed: Contexts around "generate" and "score".

    Returns:
        The rollout, ready for training, and its metrics: one number per response or pair, or sums with counts. If a
        number of it isn't finite on any process, all give a rollout that says so, is `stopped` and has no metrics.
    """
    seed = (number, config.process_index)

    # 1 Sample responses, and shuffle the prompts, since micro-batches take responses in order.
    with timed("generate"):
        responses = roles.sample(rows, config.num_samples, seed_of(config.seed, Purpose.SAMPLING, *seed))
    with timed("score"):
        order = group_permutation(len(rows), config.num_samples, seed_of(config.seed, Purpose.ROWS, *seed))
        responses = [responses[index] for index in order]

        # 2 Ask for opinions on whole responses.
        opinions = label(rows, responses)
        rollout = new_rollout(
            PairRollout, rows, responses, opinions.scores, opinions.error, num_samples=config.num_samples
        )
        if found := nonfinite_everywhere({"rewards": [rollout.scores]}, accelerator):
            return rollout.rejected(found), {}

        # 3 Choose pairs.
        chosen = choose_pairs(opinions, rollout.response_ids, config)
        rollout.pairs, rollout.labels = chosen.pairs, chosen.labels

        # 4 Score tokens of all responses by the policy and the reference. The first batch's pass serves its update,
        # too, if all its responses are in pairs.
        kept = kept_row(number, config, accelerator)
        if kept is not None:
            first = slice(kept, kept + config.per_device_train_batch_size)
            whole = rollout.used(first) == list(range(first.start, first.stop))
            kept = kept if whole and rollout.pairs_of(first).any() else None
        score_tokens(rollout, config, roles, config.per_device_train_batch_size, pad_token_id, kept)
        if found := nonfinite_everywhere({name: [values] for name, values in rollout.tokens.items()}, accelerator):
            return rollout.rejected(found), {}

        # 5 Say how it went.
        return rollout, describe(rollout, opinions, chosen, config.beta)


def describe(rollout: PairRollout, opinions: Opinions, chosen: Chosen, beta: float) -> dict[str, Tensor]:
    """Metrics of a rollout: of its responses `[S]`, prompts `[D]` and pairs `[P]`, or sums with counts `[1, 2]`."""
    prompts, looked_at = len(rollout.response_ids) // rollout.num_samples, float(chosen.candidates)
    of_responses = {**describe_responses(rollout), **opinions.metrics}
    metrics = {
        **of_responses,
        "objective/entropy": rollout.tokens["entropy"].sum(1),
        "pairs/per_prompt": torch.tensor([[float(len(chosen.pairs)), float(prompts)]]),
        "pairs/ties": torch.tensor([[float(chosen.ties), looked_at]]),
        "pairs/without_opinion": torch.tensor([[float(chosen.without_opinion), looked_at]]),
    }
    if (shaped := metrics.pop("objective/shaped_scores", None)) is not None:
        metrics["objective/rlhf_reward"] = shaped - beta * metrics["objective/kl"]
        metrics["objective/scores_margin"] = rollout.scores[chosen.pairs[:, 0]] - rollout.scores[chosen.pairs[:, 1]]
    return metrics
