"""Pairs of one micro-batch and their loss: tensors in, tensors out.

Notation: S responses with N tokens, P pairs of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_align.layout.branches import Branches
from hf_align.losses.batch import PreferenceBatch
from hf_align.trainers.direct import direct_loss, direct_metrics
from hf_align.trainers.online.config import OnlineDPOConfig


def batch_of_pairs(
    logps: Tensor, ref_logps: Tensor, branches: Branches, pairs: Tensor, *, with_tokens: bool
) -> PreferenceBatch:
    """The pairs of a micro-batch, as losses get them.

    Args:
        logps: `[N]` log-probs of the tokens under the policy.
        ref_logps: `[N]`, under the reference.
        branches: The S responses.
        pairs: `[P, 2]` places of the chosen and the rejected response; a response may be in several.
        with_tokens: Whether a loss may read the log-probs of single tokens.
    """
    lengths = branches.lengths()  # [S]
    sums, ref_sums = branches.sum_by_branch(logps)[pairs], branches.sum_by_branch(ref_logps)[pairs]  # [P, 2]
    tokens = None
    if with_tokens:
        responses = pairs.flatten()  # [2P]
        counts = lengths[responses]
        starts = (lengths.cumsum(0) - lengths)[responses] - (counts.cumsum(0) - counts)
        places = starts.repeat_interleave(counts)
        tokens = logps[places + torch.arange(len(places), device=places.device)]
    return PreferenceBatch(*sums.unbind(1), *lengths[pairs].unbind(1), *ref_sums.unbind(1), flat_token_logps=tokens)


def pair_losses(batch: PreferenceBatch, labels: Tensor, config: OnlineDPOConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each pair, such as DPO's or IPO's.

    With soft labels `p * L(chosen, rejected) + (1 - p) * L(rejected, chosen)`, which is the expected loss when the
    better response is drawn with probability p.

    Args:
        batch: P pairs, with the reference's log-probs.
        labels: `[P]` probability that the chosen response is better.
        config: Options of the run.

    Returns:
        `[P]` with gradient, and metrics `[P]`, or sums and counts `[P, 2]`: of a tie no order is right.
    """
    losses = direct_loss(batch, config)
    if config.labels == "soft":
        losses = labels * losses + (1 - labels) * direct_loss(batch.flipped(), config)
    metrics = direct_metrics(batch, config)
    ordered = (labels != 0.5).float()
    metrics["rewards/accuracies"] = torch.stack([metrics["rewards/accuracies"] * ordered, ordered], 1)
    return losses, metrics
