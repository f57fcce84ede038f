"""Losses for pairwise reward models: Bradley-Terry with three uses of a margin, and the hinge.

Notation: B pairs, d = chosen reward - rejected reward, m = margin (how much better the chosen response is).
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from hf_align.errors import UserError
from hf_align.losses.inputs import prepare


def bradley_terry_loss(
    chosen_rewards: Tensor,
    rejected_rewards: Tensor,
    *,
    margin: Tensor | None = None,
    margin_mode: Literal["weight", "scale", "shift"] = "weight",
) -> Tensor:
    """Negative log-likelihood of the preferences under Bradley-Terry, P(chosen > rejected) = sigmoid(d), per pair.

    Effect of a margin:
    - "weight": `-m * logsigmoid(d)`; clear preferences count for more.
    - "scale":  `-logsigmoid(m * d)`; clear preferences get a steeper sigmoid.
    - "shift":  `-logsigmoid(d - m)`; rewards have to differ by about m (Llama 2, eq. 2; TRL's meaning of a margin).

    Args:
        chosen_rewards: `[B]`.
        rejected_rewards: `[B]`.
        margin: `[B]`, each >= 0, or None for the plain loss `-logsigmoid(d)`.
        margin_mode: Ignored without a margin.

    Returns:
        `[B]` losses.

    Raises:
        UserError: A negative, NaN or infinite margin, or an unknown margin_mode.
        ValueError: Shapes differ.
    """
    if margin_mode not in ("weight", "scale", "shift"):
        raise UserError(f'margin_mode must be "weight", "scale" or "shift", got {margin_mode!r}.')
    if margin is None:
        chosen, rejected = prepare(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
        return -logsigmoid(chosen - rejected)
    chosen, rejected, margin = prepare(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards, margin=margin)
    _check_margin(margin)
    if margin_mode == "weight":
        return -margin * logsigmoid(chosen - rejected)
    difference = chosen - rejected
    return -logsigmoid(margin * difference if margin_mode == "scale" else difference - margin)


def ranking_loss(chosen_rewards: Tensor, rejected_rewards: Tensor, *, margin: float | Tensor = 0.0) -> Tensor:
    """Hinge loss `relu(m - d)`, per pair: no gradient once the chosen reward leads by the margin.

    Args:
        chosen_rewards: `[B]`.
        rejected_rewards: `[B]`.
        margin: Required lead of the chosen reward, >= 0: a number, or `[B]`.

    Returns:
        `[B]` losses.

    Raises:
        UserError: A negative, NaN or infinite margin.
        ValueError: Shapes differ.
    """
    if not isinstance(margin, Tensor):  # float32 whatever the rewards' dtype: 0.1 rounds in 16 bits
        margin = torch.full(chosen_rewards.shape, float(margin), device=chosen_rewards.device)
    chosen, rejected, margin = prepare(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards, margin=margin)
    _check_margin(margin)
    return (margin - (chosen - rejected)).relu()


def _check_margin(margin: Tensor) -> None:
    flat = margin.reshape(-1)  # a single number becomes one row
    bad = (~((flat >= 0) & flat.isfinite())).nonzero()  # NaN is caught, too
    if bad.numel() > 0:
        raise UserError(
            f"margin must be a finite number, 0 or more, in every row, but row {int(bad[0])} of the batch has "
            f"{flat[bad[0]].item()}: swap chosen and rejected there, or drop the row."
        )
