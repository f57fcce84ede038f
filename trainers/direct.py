"""What direct methods share, on given pairs (DPO, IPO) or on sampled ones (online): options, loss and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from hf_align.errors import UserError
from hf_align.losses import dpo_loss, ipo_loss
from hf_align.trainers.moving_reference import ReferenceConfig


@dataclass
class DirectConfig(ReferenceConfig):
    """Options of the losses of DPO and IPO."""

    beta: float = field(
        default=0.1,
        metadata={"range": "(0, inf)", "help": "Strength of the pull towards the reference (tau in the IPO paper)."},
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={"range": "[0, 0.5)", "help": "Assumed share of flipped labels (cDPO), below 0.5; not with 'ipo'."},
    )
    length_normalize: bool = field(default=False, metadata={"help": "Use log-probs per token in the 'sigmoid' loss."})
    ipo_target: float | None = field(
        default=None,
        metadata={"help": "IPO's target for the difference of log-ratios. None: 1/(2*beta). The textbook has 1/beta."},
    )
    ipo_reduction: Literal["mean", "sum"] = field(
        default="mean",
        metadata={
            "help": "IPO's log-ratios: 'mean' over a response's tokens (the authors' form) or 'sum' (the textbook's)."
        },
    )


def check_smoothing(label_smoothing: float, loss_types: Sequence[str]) -> None:
    """Refuse label smoothing of IPO, also as one of several losses.

    Raises:
        UserError: It is above 0 and a loss is "ipo".
    """
    if label_smoothing and "ipo" in loss_types:
        raise UserError(
            f"label_smoothing is {label_smoothing}, and loss_type 'ipo' has none: flipped labels would count in full; "
            "leave label_smoothing out, or use loss_type 'sigmoid' alone."
        )


def direct_loss(name: str, logps: Tensor, ref_logps: Tensor, lengths: Tensor, args: DirectConfig) -> Tensor:
    """Loss of each pair.

    Args:
        name: "sigmoid" (DPO) or "ipo".
        logps: `[B, 2]` summed log-probs of the chosen and the rejected responses under the policy.
        ref_logps: `[B, 2]`, under the reference.
        lengths: `[B, 2]` tokens of the responses.
        args: Options of the run.

    Returns:
        `[B]`.
    """
    if name == "ipo":
        by_token = args.ipo_reduction == "mean"
        return ipo_loss(
            *(*logps.unbind(1), *ref_logps.unbind(1)),
            beta=args.beta,
            chosen_lengths=lengths[:, 0] if by_token else None,
            rejected_lengths=lengths[:, 1] if by_token else None,
            target=args.ipo_target,
        )
    if args.length_normalize:
        logps, ref_logps = logps / lengths, ref_logps / lengths
    return dpo_loss(*(*logps.unbind(1), *ref_logps.unbind(1)), beta=args.beta, label_smoothing=args.label_smoothing)


def direct_metrics(logps: Tensor, ref_logps: Tensor, beta: float) -> dict[str, Tensor]:
    """Implicit rewards and log-probs of pairs `[B, 2]`: `[B]` each, without gradient."""
    rewards = beta * (logps - ref_logps).detach()
    chosen, rejected = rewards[:, 0], rewards[:, 1]
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "rewards/margins": chosen - rejected,
        "logps/chosen": logps[:, 0],
        "logps/rejected": logps[:, 1],
    }
