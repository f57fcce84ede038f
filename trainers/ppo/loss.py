"""The loss of one micro-batch of a rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_align.layout.branches import Branches
from hf_align.losses import ppo_clip_loss, reinforce_loss, value_loss
from hf_align.losses.kl import estimate_kl

if TYPE_CHECKING:
    from hf_align.trainers.ppo.trainer import PPOTrainer


def ppo_loss(trainer: PPOTrainer, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy and value loss, and the entropy and KL terms that the options ask for.

    Args:
        trainer: Whose options hold.
        model: The policy with its value head.
        inputs: `branches`, and for its N tokens old_logps, ref_logps, values, advantages and returns, `[N]` each; and
            `output`, the model's on them, where it is known.

    Returns:
        The mean over the tokens, with gradient, and metrics `[N]`.
    """
    args = trainer.args
    branches = Branches(**inputs["branches"])
    options: dict[str, Any] = {"return_entropy": True, "entropy_grad": True} if args.entropy_coef else {}
    if args.kl_kind == "full":
        options["reference"] = trainer.reference_head(model, branches)
    output = inputs.get("output")
    if output is None:
        output, _ = trainer.run_model(model, branches, temperature=args.temperature, **options)
    logps, values, old_logps = output["logps"], output["values"], inputs["old_logps"]
    mask = torch.ones_like(logps)
    if args.policy_loss == "clip":
        policy = ppo_clip_loss(logps, old_logps, inputs["advantages"], mask, clip_range=args.clip_range)
    else:
        policy = reinforce_loss(logps, inputs["advantages"], mask)
    value = value_loss(values, inputs["values"], inputs["returns"], mask, clip_range=args.value_clip_range)
    loss = policy + args.value_coef * value
    if args.entropy_coef:
        loss = loss - args.entropy_coef * output["entropy"].mean()
    if args.kl_in == "loss":
        assert trainer.rollout is not None
        kind = args.kl_kind
        kl = output["kl"] if kind == "full" else estimate_kl(logps, inputs["ref_logps"], kind=kind)
        loss = loss + trainer.rollout.kl_coef * kl.mean()
    log_ratio = (logps - old_logps).detach()
    ratio = log_ratio.exp()
    return loss, {
        "policy/approxkl_avg": 0.5 * log_ratio.square(),
        "policy/clipfrac_avg": ((ratio - 1).abs() > args.clip_range).float(),
        "val/ratio": ratio,
        "loss/policy_avg": policy.detach().expand(len(logps)),
        "loss/value_avg": value.detach().expand(len(logps)),
    }
