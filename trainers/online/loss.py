"""The loss of one micro-batch of pairs: tensors in, tensors out."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_align.trainers.direct import direct_loss, direct_metrics
from hf_align.trainers.online.config import OnlineDPOConfig


def pair_losses(
    logps: Tensor, ref_logps: Tensor, lengths: Tensor, labels: Tensor, config: OnlineDPOConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of DPO or IPO of each pair.

    With soft labels `p * L(chosen, rejected) + (1 - p) * L(rejected, chosen)`, which is the expected loss when the
    better response is drawn with probability p.

    Args:
        logps: `[P, 2]` summed log-probs of the chosen and the rejected responses under the policy.
        ref_logps: `[P, 2]`, under the reference.
        lengths: `[P, 2]` tokens of the responses.
        labels: `[P]` probability that the chosen response is better.
        config: Options of the run.

    Returns:
        `[P]` with gradient, and metrics `[P]`, or sums and counts `[P, 2]`: of a tie no order is right.
    """
    losses = direct_loss(config.loss_type, logps, ref_logps, lengths, config)
    if config.labels == "soft":
        other = direct_loss(config.loss_type, logps.flip(1), ref_logps.flip(1), lengths.flip(1), config)
        losses = labels * losses + (1 - labels) * other
    metrics = direct_metrics(logps, ref_logps, config.beta)
    ordered = (labels != 0.5).float()
    metrics["rewards/accuracies"] = torch.stack([metrics["rewards/accuracies"] * ordered, ordered], 1)
    return losses, metrics
