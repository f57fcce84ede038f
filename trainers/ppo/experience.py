"""PPO's experience: responses of the policy, their scores, and the advantages of their tokens.

    collect                  a rollout from the prompts of one process
      Roles.sample             1  responses
      score_responses          2  their scores: Roles.reward
      score_tokens             3  log-probs, values and entropy, batch by batch: Roles.policy, Roles.reference
      shape_scores             4  scores scaled, clipped, penalised
      add_advantages           5  KL penalty, whitening, GAE or the returns minus the group's
      describe                 6  metrics

Notation: S responses, T tokens of the longest, N tokens in all, B responses per batch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from hf_align.losses.kl import estimate_kl
from hf_align.rewards import Reward
from hf_align.rl.advantages import discounted_returns, gae, group_advantages, whiten
from hf_align.rl.running_statistics import RunningMeanStd
from hf_align.trainers.nonfinite import nonfinite_everywhere
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.rollout import Rollout, ValuelessRollout
from hf_align.trainers.rollouts import scoring as rollouts
from hf_align.trainers.rollouts.data import Row
from hf_align.trainers.rollouts.processes import gather_rows, whiten_everywhere
from hf_align.trainers.rollouts.schedule import Purpose, group_permutation, seed_of
from hf_align.trainers.rollouts.scoring import (
    describe_responses,
    new_rollout,
    penalise_missing_eos,
    score_responses,
    score_tokens,
)


class Roles(rollouts.Roles, Protocol):
    """Models used to make experience: those of a run (`ModelRoles`), or stand-ins."""

    @property
    def reward(self) -> Reward:
        """The reward, which returns scores `[S]` of responses."""
        ...


def collect(
    rows: list[Row],
    number: int,
    config: PPOConfig,
    roles: Roles,
    *,
    kl_coef: float,
    statistics: RunningMeanStd,
    accelerator: Accelerator,
    pad_token_id: int,
    kept_start: int | None = None,
    timed: Callable[[str], AbstractContextManager[Any]] = nullcontext,
) -> tuple[Rollout, dict[str, Tensor]]:
    """Make rollout `number` of this process.

    Args:
        rows: The prompts, `config.num_samples` responses each.
        number: Number of the rollout, from 0, which seeds its draws.
        config: Options of the run.
        roles: Who samples, rewards and scores.
        kl_coef: Weight of the KL, also in this rollout's updates.
        statistics: Statistics of all scores so far; updated with `scale_rewards`.
        accelerator: Statistics and whitening are over all its processes.
        pad_token_id: Fills the rows of batches.
        kept_start: First row of the batch whose policy pass is kept for the first update; see `kept_row`.
        timed: Contexts around "generate" and "score".

    Returns:
        The rollout, ready for training, and its metrics: one number per response, or one in total. If a number of it
        isn't finite on any process, all give a rollout that says so, is `stopped` and has no metrics.
    """
    seed = (number, config.process_index)

    # 1 Sample responses, and shuffle the prompts, since micro-batches take responses in order.
    with timed("generate"):
        responses = roles.sample(rows, config.num_samples, seed_of(config.seed, Purpose.SAMPLING, *seed))
    with timed("score"):
        order = group_permutation(len(rows), config.num_samples, seed_of(config.seed, Purpose.ROWS, *seed))
        responses = [responses[index] for index in order]

        # 2 Reward whole responses.
        scores, error = score_responses(rows, responses, roles.reward)
        kind = Rollout if config.baseline == "value" else ValuelessRollout
        rollout = new_rollout(kind, rows, responses, scores, error, num_samples=config.num_samples, kl_coef=kl_coef)
        if found := nonfinite_everywhere({"rewards": [rollout.scores]}, accelerator):
            return rollout.rejected(found), {}

        # 3 Score their tokens by the policy and the reference, in the batches used in training.
        score_tokens(rollout, config, roles, config.per_device_train_batch_size, pad_token_id, kept_start)

        # 4 Shape the scores.
        if config.scale_rewards:
            statistics.update(torch.cat(gather_rows(rollout.scores, accelerator)))
        scores = shape_scores(rollout.scores, rollout.finished, config, statistics)  # [S]

        # 5 Compute advantages from the tokens' KL penalties and the responses' scores.
        rewards = add_advantages(rollout, scores, config, accelerator)  # [S, T]

        # 6 Nothing is learnt from what isn't a number.
        if found := nonfinite_everywhere({name: [values] for name, values in rollout.tokens.items()}, accelerator):
            return rollout.rejected(found), {}

        # 7 Say how it went.
        metrics = describe(rollout, rewards, accelerator)
        if len(roles.reward.parts) > 1:
            metrics |= {f"rewards/{name}": values for name, values in roles.reward.parts.items()}
        metrics |= {f"ensemble/{name}": values for name, values in roles.reward.details.items()}
    return rollout, metrics


def kept_row(number: int, config: PPOConfig, accelerator: Accelerator) -> int | None:
    """`rollouts.kept_row`; an entropy bonus and the exact KL need more outputs than scoring gives."""
    needs_more = bool(config.entropy_coef) or config.kl_kind == "full"
    return rollouts.kept_row(number, config, accelerator, needs_more=needs_more)


def shape_scores(scores: Tensor, finished: Tensor, config: PPOConfig, statistics: RunningMeanStd) -> Tensor:
    """Scores `[S]` for the rewards: scaled by the running statistics, clipped, cut responses penalised."""
    if config.scale_rewards:
        scores = statistics.normalize(scores, shift_mean=config.scale_rewards == "shift")
    if config.reward_clip is not None:
        scores = scores.clamp(-config.reward_clip, config.reward_clip)
    return penalise_missing_eos(scores, finished, config)


def add_advantages(rollout: Rollout, scores: Tensor, config: PPOConfig, accelerator: Accelerator) -> Tensor:
    """Add `advantages`, and with a value baseline `returns`, to a rollout with scored tokens.

    Args:
        rollout: A rollout with old_logps, ref_logps and, where they are the baseline, values.
        scores: `[S]`, shaped; each is the reward of its response's last token, EOS or the one at which the limit cut
            it.
        config: Options of the run.
        accelerator: Whitening is over all its processes.

    Returns:
        The tokens' rewards, KL penalty included, before whitening: `[S, T]`.
    """
    tokens, mask = rollout.tokens, rollout.mask  # [S, T] each
    penalties = torch.zeros(mask.shape)
    if config.kl_in != "loss":
        kind = config.kl_kind
        assert kind != "full"
        penalties = rollout.kl_coef * estimate_kl(tokens["old_logps"], tokens["ref_logps"], kind=kind)
    if config.kl_in == "terminal":
        scores, penalties = scores - penalties.sum(1), torch.zeros(mask.shape)
    rewards = torch.zeros(mask.shape).scatter(1, rollout.lengths[:, None] - 1, scores[:, None]) - penalties  # [S, T]
    whitened = whiten_everywhere(rewards, mask, accelerator, shift_mean=False) if config.whiten_rewards else rewards
    if config.baseline == "value":
        advantages, tokens["returns"] = gae(whitened, tokens["values"], mask, gamma=config.gamma, lam=config.lam)
    else:
        advantages = discounted_returns(whitened, mask, gamma=config.gamma)
    if config.baseline == "group":  # a response is one action: all of its tokens share the advantage of the whole
        of_responses = group_advantages(advantages[:, 0], rollout.num_samples, scale=config.group_scaling)  # [S]
        advantages = of_responses[:, None] * mask
    if config.whiten_advantages == "trajectory":
        advantages = whiten(advantages, mask, by_row=True)
    elif config.whiten_advantages:
        advantages = whiten_everywhere(advantages, mask, accelerator)
    tokens["advantages"] = advantages
    return rewards


def describe(rollout: Rollout, rewards: Tensor, accelerator: Accelerator) -> dict[str, Tensor]:
    """Metrics of a rollout, one number per response or one in total.

    Args:
        rollout: The complete rollout.
        rewards: `[S, T]` with the KL penalty.
        accelerator: The explained variance, where there are values, is over all its processes.
    """
    metrics = {
        "objective/scores": rollout.scores,
        **describe_responses(rollout),
        "objective/rlhf_reward": rewards.sum(1),
        "objective/entropy": rollout.tokens["entropy"].sum(1),
        "kl_coef": torch.tensor([rollout.kl_coef]),
    }
    if "values" in rollout.tokens:
        pairs = torch.stack([rollout.tokens[name][rollout.mask] for name in ("returns", "values")], 1)  # [N, 2]
        returns, values = torch.cat(gather_rows(pairs, accelerator)).double().unbind(1)
        unexplained = (returns - values).var(unbiased=False) / returns.var(unbiased=False).clamp(min=1e-12)
        metrics["val/explained_variance"] = (1 - unexplained)[None]
    return metrics
