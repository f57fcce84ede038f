"""PPO's experience: responses of the policy, their scores, and the advantages of their tokens.

    collect                  a rollout from the prompts of one process
      Roles.sample             1  responses
      reward_responses         2  their scores: Roles.reward
      score_tokens             3  log-probs, values and entropy, batch by batch: Roles.policy, Roles.reference
      shape_scores             4  scores scaled, clipped, penalised
      add_advantages           5  KL penalty, whitening, GAE
      describe                 6  metrics

Notation: S responses, T tokens of the longest, N tokens in all, B responses per batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from hf_align.layout.branches import Branches
from hf_align.losses.kl import estimate_kl
from hf_align.rewards import NonFiniteReward, Reward
from hf_align.rl.advantages import gae
from hf_align.rl.running_statistics import RunningMeanStd
from hf_align.rollouts import Response
from hf_align.trainers.nonfinite import nonfinite_everywhere
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.data import OWN_COLUMNS, Row
from hf_align.trainers.ppo.processes import gather_rows, whiten_everywhere
from hf_align.trainers.ppo.rollout import Rollout
from hf_align.trainers.ppo.schedule import Purpose, group_permutation, micro_batch_rows, mini_batch_of, seed_of


class Roles(Protocol):
    """Models used to make experience: those of a run (`ModelRoles`), or stand-ins."""

    @property
    def reward(self) -> Reward:
        """The reward, which returns scores `[S]` of responses."""
        ...

    def sample(self, rows: list[Row], num_samples: int, seed: int) -> list[Response]:
        """Sample responses to the rows' prompts, prompt by prompt."""
        ...

    def policy(self, branches: Branches) -> dict[str, Tensor]:
        """Return logps, values and entropy of the batch's tokens, `[N]` each."""
        ...

    def reference(self, branches: Branches) -> Tensor:
        """Return the reference's log-probs of the batch's tokens, `[N]`."""
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
        rollout = reward_responses(rows, responses, roles.reward, num_samples=config.num_samples, kl_coef=kl_coef)
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


def reward_responses(
    rows: list[Row], responses: list[Response], reward: Reward, *, num_samples: int, kl_coef: float
) -> Rollout:
    """A rollout of responses and their scores, without per-token values yet.

    Args:
        rows: The prompts.
        responses: Responses to these prompts, in the order for micro-batches.
        reward: The reward.
        num_samples: Number of adjacent responses to the same prompt.
        kl_coef: KL coefficient of this rollout.
    """
    asked = [rows[response.prompt_index] for response in responses]
    error = None
    try:
        scores = reward(
            [row["prompt"] for row in asked],
            [response.text for response in responses],
            prompt_ids=[row["prompt_ids"] for row in asked],
            response_ids=[response.token_ids for response in responses],
            finished=[response.finished for response in responses],
            columns={name: [row[name] for row in asked] for name in rows[0] if name not in OWN_COLUMNS},
        )
    except NonFiniteReward as found:  # the other processes are to hear of it
        scores, error = torch.full((len(responses),), math.nan), found
    return Rollout(
        prompt_ids=[list(row["prompt_ids"]) for row in asked],
        response_ids=[response.token_ids for response in responses],
        finished=torch.tensor([response.finished for response in responses]),  # [S]
        scores=scores,  # [S]
        num_samples=num_samples,
        kl_coef=kl_coef,
        reward_error=error,
    )


def kept_row(number: int, config: PPOConfig, accelerator: Accelerator) -> int | None:
    """Start of rollout `number`'s first micro-batch, if its scoring pass is kept for training.

    The weights are unchanged then, so its loss needs no further pass. None if the loss needs more outputs than scoring,
    or if gradients are reduced across processes by hooks that expect alternating forwards and backwards.
    """
    several = accelerator.num_processes > 1 or accelerator.state.deepspeed_plugin is not None
    if several or config.entropy_coef or config.kl_kind == "full":
        return None
    return micro_batch_rows(mini_batch_of(0, number, config), 0, config).start


@torch.no_grad()
def score_tokens(
    rollout: Rollout, config: PPOConfig, roles: Roles, size: int, pad_token_id: int, kept_start: int | None = None
) -> None:
    """Add old_logps, ref_logps, values and entropy, `size` responses at a time.

    The kept batch comes last, with its policy after its reference, so that its saved activations don't exist while
    others run.
    """
    flat: dict[int, dict[str, Tensor]] = {}  # by first row of the batch, [N] each
    for start in sorted(range(0, len(rollout.response_ids), size), key=lambda start: start == kept_start):
        rows = slice(start, start + size)
        branches = rollout.branches(rows, pad_token_id=pad_token_id, row_tokens=config.row_tokens).to(config.device)
        ref_logps = roles.reference(branches)
        with torch.set_grad_enabled(start == kept_start):
            output = roles.policy(branches)
        if start == kept_start:
            rollout.first_output = {name: output[name] for name in ("logps", "values")}
        old_logps, values, entropy = (output[name].detach() for name in ("logps", "values", "entropy"))
        flat[start] = {"old_logps": old_logps, "ref_logps": ref_logps, "values": values, "entropy": entropy}
    for name in ("old_logps", "ref_logps", "values", "entropy"):
        rollout.tokens[name] = rollout.spread(torch.cat([flat[start][name].float().cpu() for start in sorted(flat)]))


def shape_scores(scores: Tensor, finished: Tensor, config: PPOConfig, statistics: RunningMeanStd) -> Tensor:
    """Scores `[S]` for the rewards: scaled by the running deviation, clipped, cut responses penalised."""
    if config.scale_rewards:
        scores = scores / statistics.std
    if config.reward_clip is not None:
        scores = scores.clamp(-config.reward_clip, config.reward_clip)
    if config.missing_eos_penalty is not None:
        scores = scores - config.missing_eos_penalty * (~finished)
    return scores


def add_advantages(rollout: Rollout, scores: Tensor, config: PPOConfig, accelerator: Accelerator) -> Tensor:
    """Add `advantages` and `returns` to a rollout with scored tokens.

    Args:
        rollout: A rollout with old_logps, ref_logps and values.
        scores: `[S]`, shaped; each is the reward of its response's last token, EOS or the one at which the limit cut
            it.
        config: Options of the run.
        accelerator: Whitening is over all its processes.

    Returns:
        The tokens' rewards, KL penalty included, before whitening: `[S, T]`.
    """
    tokens, mask = rollout.tokens, rollout.mask  # [S, T] each
    rewards = torch.zeros(mask.shape).scatter(1, rollout.lengths[:, None] - 1, scores[:, None])  # [S, T]
    if config.kl_in == "reward":
        kind = config.kl_kind
        assert kind != "full"
        rewards = rewards - rollout.kl_coef * estimate_kl(tokens["old_logps"], tokens["ref_logps"], kind=kind)
    whitened = whiten_everywhere(rewards, mask, accelerator, shift_mean=False) if config.whiten_rewards else rewards
    advantages, tokens["returns"] = gae(whitened, tokens["values"], mask, gamma=config.gamma, lam=config.lam)
    tokens["advantages"] = whiten_everywhere(advantages, mask, accelerator) if config.whiten_advantages else advantages
    return rewards


def describe(rollout: Rollout, rewards: Tensor, accelerator: Accelerator) -> dict[str, Tensor]:
    """Metrics of a rollout, one number per response or one in total.

    Args:
        rollout: The complete rollout.
        rewards: `[S, T]` with the KL penalty.
        accelerator: The explained variance is over all its processes.
    """
    tokens, mask = rollout.tokens, rollout.mask
    pairs = torch.stack([tokens["returns"][mask], tokens["values"][mask]], 1)  # [N, 2]
    returns, values = torch.cat(gather_rows(pairs, accelerator)).double().unbind(1)
    unexplained = (returns - values).var(unbiased=False) / returns.var(unbiased=False).clamp(min=1e-12)
    return {
        **describe_responses(rollout),
        "objective/rlhf_reward": rewards.sum(1),
        "objective/entropy": tokens["entropy"].sum(1),
        "val/explained_variance": (1 - unexplained)[None],
        "kl_coef": torch.tensor([rollout.kl_coef]),
    }


def describe_responses(rollout: Rollout) -> dict[str, Tensor]:
    """Score, KL from the reference, length and end of each response: `[S]`."""
    return {
        "objective/scores": rollout.scores,
        "objective/kl": estimate_kl(rollout.tokens["old_logps"], rollout.tokens["ref_logps"]).sum(1),
        "response/length": rollout.lengths.float(),
        "response/eos_share": rollout.finished.float(),
    }
