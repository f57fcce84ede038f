"""Losses for pairwise reward models: Bradley-Terry with uses of a margin and soft labels, and the hinge.

Notation: B pairs, d = chosen reward - rejected reward, m = margin (how much better the chosen response is),
p = label, the probability that the first response is the better one (1 where no label is given).
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from hf_align.errors import UserError
from hf_align.losses.inputs import check_label_smoothing, prepare


def bradley_terry_loss(
    chosen_rewards: Tensor,
    rejected_rewards: Tensor,
    *,
    margin: Tensor | None = None,
    margin_mode: Literal["weight", "scale", "shift", "none"] = "weight",
    label: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Negative log-likelihood of the preferences under Bradley-Terry, P(chosen > rejected) = sigmoid(d), per pair.

    Effect of a margin on the loss L(d):
    - "weight": `-m * logsigmoid(d)`; clear preferences count for more.
    - "scale":  `-logsigmoid(m * d)`; clear preferences get a steeper sigmoid.
    - "shift":  `-logsigmoid(d - m)`; rewards have to differ by about m (Llama 2, eq. 2; TRL's meaning of a margin).
    - "none":   `-logsigmoid(d)`; the margin has no effect.

    A label makes it the expected loss, `p * L(d) + (1 - p) * L(-d)`: the cross-entropy with the label, smallest where
    sigmoid(d) = p (for "scale", where sigmoid(m * d) = p; for "shift", further apart). Label smoothing s assumes that
    each label is flipped with probability s: p becomes `(1 - s) * p + s * (1 - p)`.

    Args:
        chosen_rewards: `[B]`, rewards of the first responses.
        rejected_rewards: `[B]`, of the second ones.
        margin: `[B]`, each >= 0, or None for the plain loss.
        margin_mode: Ignored without a margin.
        label: `[B]`, each in [0, 1]: P(first response is better). None: the first one is.
        label_smoothing: s, in [0, 0.5).

    Returns:
        `[B]` losses.

    Raises:
        UserError: A negative, NaN or infinite margin, a label or label_smoothing out of range, or an unknown
            margin_mode.
        ValueError: Shapes differ.

    Example:
        >>> import torch
        >>> from hf_align.losses import bradley_terry_loss
        >>> bradley_terry_loss(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]))
        tensor([0.1269, 0.6931])
    """
    if margin_mode not in ("weight", "scale", "shift", "none"):
        raise UserError(f'margin_mode must be "weight", "scale", "shift" or "none", got {margin_mode!r}.')
    chosen, rejected, *margins = prepare(
        chosen_rewards=chosen_rewards,
        rejected_rewards=rejected_rewards,
        **({} if margin is None else {"margin": margin}),
    )
    for each in margins:
        _check_margin(each)
    mode = margin_mode if margins else "none"

    def loss(difference: Tensor) -> Tensor:
        if mode == "weight":
            return -margins[0] * logsigmoid(difference)
        if mode == "scale":
            return -logsigmoid(margins[0] * difference)
        return -logsigmoid(difference - margins[0] if mode == "shift" else difference)

    return _expected(loss, chosen - rejected, label, label_smoothing)


def ranking_loss(
    chosen_rewards: Tensor,
    rejected_rewards: Tensor,
    *,
    margin: float | Tensor = 1.0,
    label: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Hinge loss `relu(m - d)`, per pair: no gradient once the chosen reward leads by the margin.

    With a label, `p * relu(m - d) + (1 - p) * relu(m + d)`. Its minimum is at d = m for every p > 1/2 (for 0 < m), so
    a soft label only sets how hard a pair pulls: hinge rewards are not probabilities.

    Args:
        chosen_rewards: `[B]`.
        rejected_rewards: `[B]`.
        margin: Required lead of the better reward, >= 0: a number, or `[B]`.
        label: As in `bradley_terry_loss`.
        label_smoothing: Likewise.

    Returns:
        `[B]` losses.

    Raises:
        UserError: A negative, NaN or infinite margin, or a label or label_smoothing out of range.
        ValueError: Shapes differ.

    Example:
        >>> import torch
        >>> from hf_align.losses import ranking_loss
        >>> ranking_loss(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]))
        tensor([0., 1.])
    """
    if not isinstance(margin, Tensor):  # float32 whatever the rewards' dtype: 0.1 rounds in 16 bits
        margin = torch.full(chosen_rewards.shape, float(margin), device=chosen_rewards.device)
    chosen, rejected, margins = prepare(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards, margin=margin)
    _check_margin(margins)
    return _expected(lambda difference: (margins - difference).relu(), chosen - rejected, label, label_smoothing)


def _expected(
    loss: Callable[[Tensor], Tensor], difference: Tensor, label: Tensor | None, label_smoothing: float
) -> Tensor:
    """`p * loss(d) + (1 - p) * loss(-d)`, p the smoothed label."""
    check_label_smoothing(label_smoothing)
    if label is None:
        if label_smoothing == 0.0:
            return loss(difference)
        return (1.0 - label_smoothing) * loss(difference) + label_smoothing * loss(-difference)
    _, label = prepare(chosen_rewards=difference, label=label)
    _check_label(label)
    label = label_smoothing + (1.0 - 2.0 * label_smoothing) * label
    return label * loss(difference) + (1.0 - label) * loss(-difference)


def _check_label(label: Tensor) -> None:
    flat = label.reshape(-1)
    bad = (~((flat >= 0) & (flat <= 1))).nonzero()  # NaN is caught, too
    if bad.numel() > 0:
        raise UserError(
            f"label must be the probability that the first response is better, from 0 to 1, but row {int(bad[0])} of "
            f"the batch has {flat[bad[0]].item()}."
        )


def _check_margin(margin: Tensor) -> None:
    flat = margin.reshape(-1)  # a single number becomes one row
    bad = (~((flat >= 0) & flat.isfinite())).nonzero()  # NaN is caught, too
    if bad.numel() > 0:
        raise UserError(
            f"margin must be a finite number, 0 or more, in every row, but row {int(bad[0])} of the batch has "
            f"{flat[bad[0]].item()}: swap chosen and rejected there, or drop the row."
        )
