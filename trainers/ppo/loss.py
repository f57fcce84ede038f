"""The loss of one micro-batch of a rollout: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hf_align.losses import ppo_clip_loss, reinforce_loss, value_loss
from hf_align.losses.kl import estimate_kl
from hf_align.trainers.ppo.config import PPOConfig


def ppo_loss(
    output: Mapping[str, Tensor], old: Mapping[str, Tensor], config: PPOConfig, kl_coef: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy loss, plus the value loss, entropy and KL terms selected by the options.

    Args:
        output: Output of the policy for the N tokens, `[N]` each, with gradient: `logps`; `values` if they are the
            baseline; `entropy` if `entropy_coef` is not 0; the exact `kl` if `kl_estimator` is "full".
        old: The rollout's numbers for them, `[N]` each: old_logps, ref_logps, advantages; values and returns likewise.
        config: Options of the run.
        kl_coef: Weight of the KL with `kl_in="loss"`.

    Returns:
        The mean over the tokens, with gradient, and metrics `[N]`.
    """
    logps, old_logps, advantages = output["logps"], old["old_logps"], old["advantages"]
    mask = torch.ones_like(logps)
    if config.policy_loss == "clip":
        policy = ppo_clip_loss(logps, old_logps, advantages, mask, clip_range=config.clip_range)
    else:
        policy = reinforce_loss(logps, advantages, mask)
    log_ratio = (logps - old_logps).detach()
    ratio = log_ratio.exp()
    metrics = {
        "policy/approxkl_avg": 0.5 * log_ratio.square(),
        "policy/clipfrac_avg": ((ratio - 1).abs() > config.clip_range).float(),
        "loss/policy_avg": policy.detach().expand(len(logps)),
    }
    loss = policy
    if config.baseline == "value":
        value = value_loss(output["values"], old["values"], old["returns"], mask, clip_range=config.value_clip_range)
        loss = policy + config.value_coef * value
        metrics |= {"loss/value_avg": value.detach().expand(len(logps)), "val/ratio": ratio}
    if config.entropy_coef:
        loss = loss - config.entropy_coef * output["entropy"].mean()
    if config.kl_in == "loss":
        kind = config.kl_kind
        kl = output["kl"] if kind == "full" else estimate_kl(logps, old["ref_logps"], kind=kind)
        loss = loss + kl_coef * kl.mean()
    return loss, metrics
