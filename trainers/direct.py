"""What direct methods share, on given pairs (DPO, IPO) or on sampled ones (online): options, loss and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from hf_align.errors import UserError
from hf_align.losses.batch import PreferenceBatch
from hf_align.trainers.moving_reference import ReferenceConfig
from hf_align.trainers.named_losses import NamedLoss, check_options, read_losses


@dataclass
class DirectConfig(ReferenceConfig):
    """Options of the losses of direct methods."""

    loss_type: str | Callable | list[str | Callable] = field(
        default="sigmoid",
        metadata={
            "help": "Loss of a pair: 'sigmoid' (DPO), 'ipo', 'simpo' or another name in docs/how-to/losses.md, a "
            "function of your own (FILE.py:FUNCTION, MODULE:FUNCTION or, in Python, the function), or a list of them, "
            "summed with loss_weights."
        },
    )
    loss_weights: list[float] | None = field(
        default=None, metadata={"help": "One weight per entry of a loss_type list. None: 1 each."}
    )
    beta: float = field(
        default=0.1,
        metadata={
            "range": "(0, inf)",
            "help": "Strength of the pull towards the reference (tau in the IPO paper). 'simpo' and 'sigmoid_norm', "
            "which have log-probs per token, take a larger one, such as 2 and 5.",
        },
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={
            "range": "[0, 0.5)",
            "help": "Assumed share of flipped labels, below 0.5, of 'sigmoid' (cDPO), 'sigmoid_norm', 'robust', "
            "'exo_pair' (which needs it above 0) and 'simpo'.",
        },
    )
    length_normalize: bool = field(
        default=False, metadata={"help": "Use log-probs per token in the 'sigmoid' loss, as 'sigmoid_norm' does."}
    )
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
    simpo_gamma: float = field(
        default=0.5,
        metadata={
            "range": "[0, inf)",
            "help": "SimPO's margin: by how much beta times the difference of mean log-probs should exceed 0.",
        },
    )
    discopop_tau: float = field(
        default=0.05, metadata={"range": "(0, inf)", "help": "DiscoPOP's temperature of the blend of its two parts."}
    )
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = field(
        default="reverse_kl",
        metadata={
            "help": "Divergence that the policy is kept from its reference by, in losses of the difference of "
            "log-ratios (f-DPO)."
        },
    )
    f_alpha_divergence_coef: float = field(
        default=0.5,
        metadata={"range": "[0, 1]", "help": "Which 'alpha_divergence': from forward KL at 0 to reverse KL at 1."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        losses = self.losses
        check_options(self, losses)
        self._check_weights(len(losses))

    def _check_weights(self, count: int) -> None:
        """Refuse weights that aren't one finite number per loss, or under which nothing is learnt."""
        weights = self.loss_weights
        if weights is None:
            return
        if not isinstance(weights, list | tuple) or not all(isinstance(weight, int | float) for weight in weights):
            raise UserError(f"loss_weights is {weights!r}; give a list with one number per loss type.")
        if len(weights) != count:
            raise UserError(f"loss_weights has {len(weights)} numbers for {count} loss types.")
        if not all(0 <= weight < math.inf for weight in weights):
            raise UserError(f"loss_weights is {weights}; each weight must be 0 or more.")
        if not any(weights):
            raise UserError(f"loss_weights is {weights}, with which nothing is learnt; one must be above 0.")

    @property
    def losses(self) -> list[NamedLoss]:
        """The losses that `loss_type` names."""
        read: tuple[Any, list[NamedLoss]] | None = vars(self).get("_losses")
        if read is None or read[0] != self.loss_type:  # a file's function is imported once
            self._losses = read = (self.loss_type, read_losses(self.loss_type))
        return read[1]

    @property
    def loss_types(self) -> list[str]:
        """Names of the losses."""
        return [loss.name for loss in self.losses]

    @property
    def reference_free(self) -> bool:
        """Whether no loss needs a reference."""
        return all(loss.reference_free for loss in self.losses)

    def to_dict(self) -> dict[str, Any]:
        """As `TrainingArguments.to_dict`, with functions as `MODULE:FUNCTION`."""
        names = self.loss_types
        return {**super().to_dict(), "loss_type": names if isinstance(self.loss_type, list | tuple) else names[0]}


def direct_loss(batch: PreferenceBatch, config: DirectConfig) -> Tensor:
    """Weighted sum `[B]` of the losses of each pair."""
    losses = config.losses
    weights = config.loss_weights or [1.0] * len(losses)
    total = sum(weight * loss(batch, config) for weight, loss in zip(weights, losses, strict=True))
    assert isinstance(total, Tensor)
    return total


def direct_metrics(batch: PreferenceBatch, config: DirectConfig) -> dict[str, Tensor]:
    """Implicit rewards and log-probs of pairs: `[B]` each, without gradient.

    The implicit reward is beta times the log-ratio to the reference, or, if no loss needs one, beta times the mean
    log-prob of a response's tokens (SimPO's reward).
    """
    if config.reference_free:
        chosen, rejected = batch.chosen_means.detach(), batch.rejected_means.detach()
    else:
        chosen, rejected = batch.chosen_log_ratios.detach(), batch.rejected_log_ratios.detach()
    chosen, rejected = config.beta * chosen, config.beta * rejected
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "rewards/margins": chosen - rejected,
        "logps/chosen": batch.chosen_logps.detach(),
        "logps/rejected": batch.rejected_logps.detach(),
    }
