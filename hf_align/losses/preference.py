"""Direct preference losses: DPO (with label smoothing) and IPO.

Notation: B pairs. Log-probs are sums over a response's tokens, in nats. The log-ratio of a response is
log pi(y|x) - log pi_ref(y|x).
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from hf_align.errors import UserError
from hf_align.losses.inputs import check_label_smoothing, prepare


def dpo_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7), per pair.

    `-(1 - s) * logsigmoid(beta * h) - s * logsigmoid(-beta * h)`, with h the chosen log-ratio minus the rejected one
    and s the label smoothing (conservative DPO, Mitchell 2023: s is the probability that a label is flipped).
    For the length-normalised variant pass log-probs divided by their lengths, the reference's too.

    Args:
        chosen_logps: `[B]` log-probs of the chosen responses under the policy.
        rejected_logps: `[B]`, of the rejected ones.
        ref_chosen_logps: `[B]`, under the reference.
        ref_rejected_logps: `[B]`, under the reference.
        beta: Strength of the pull towards the reference; > 0.
        label_smoothing: In [0, 0.5).

    Returns:
        `[B]` losses; log 2 where policy and reference agree.

    Raises:
        UserError: beta or label_smoothing out of range.
        ValueError: Shapes differ.

    Example:
        >>> import torch
        >>> from hf_align.losses import dpo_loss
        >>> logps = torch.tensor([-12.0, -20.0])
        >>> dpo_loss(logps, logps - 1, logps, logps - 1)  # policy and reference agree: log 2
        tensor([0.6931, 0.6931])
    """
    check_preference_options(beta, label_smoothing)
    chosen, rejected = _log_ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return smoothed_logistic(beta * (chosen - rejected), label_smoothing)


def ipo_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    chosen_lengths: Tensor | None = None,
    rejected_lengths: Tensor | None = None,
    target: float | None = None,
) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, eq. 17), per pair: `(h - target)^2`.

    h is the chosen log-ratio minus the rejected one. With lengths it is the difference of per-token means, as the
    paper's authors ran it; without, of sums, whose loss grows with length. Textbooks that write `(h - 1/beta)^2` on
    sums mean `target=1/beta` and no lengths.

    Args:
        chosen_logps: `[B]` log-probs of the chosen responses under the policy.
        rejected_logps: `[B]`, of the rejected ones.
        ref_chosen_logps: `[B]`, under the reference.
        ref_rejected_logps: `[B]`, under the reference.
        beta: The paper's tau; > 0. Only sets the default target.
        chosen_lengths: `[B]` response tokens behind each chosen log-prob, or None for sums.
        rejected_lengths: `[B]`, required if and only if chosen_lengths is given.
        target: Target of h, in nats (per token with lengths); default `1 / (2 * beta)`.

    Returns:
        `[B]` losses.

    Raises:
        UserError: beta out of range, or only one of the two lengths given.
        ValueError: Shapes differ.

    Example:
        >>> import torch
        >>> from hf_align.losses import ipo_loss
        >>> logps = torch.tensor([-12.0, -20.0])
        >>> ipo_loss(logps, logps - 1, logps, logps - 1, beta=0.5)  # policy and reference agree: the target's square
        tensor([1., 1.])
    """
    check_preference_options(beta)
    chosen, rejected = _log_ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)
    if chosen_lengths is not None and rejected_lengths is not None:
        _, chosen_tokens, rejected_tokens = prepare(
            chosen_logps=chosen, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths
        )
        # An empty response has log-ratio 0: its mean is 0, too.
        chosen, rejected = chosen / chosen_tokens.clamp(min=1.0), rejected / rejected_tokens.clamp(min=1.0)
    elif chosen_lengths is not None or rejected_lengths is not None:
        raise UserError("ipo_loss needs both chosen_lengths and rejected_lengths, or neither.")
    return (chosen - rejected - (0.5 / beta if target is None else target)).square()


def smoothed_logistic(gap: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """`-(1 - s) * logsigmoid(gap) - s * logsigmoid(-gap)`, s the label smoothing: `[B]` to `[B]`."""
    return -(1.0 - label_smoothing) * logsigmoid(gap) - label_smoothing * logsigmoid(-gap)


def check_preference_options(beta: float, label_smoothing: float = 0.0) -> None:
    """Refuse values that make a preference loss meaningless.

    Raises:
        UserError: beta is not positive, or label_smoothing not in [0, 0.5).
    """
    if not beta > 0:
        raise UserError(f"beta must be greater than 0, got {beta}; 0.1 is a usual value.")
    check_label_smoothing(label_smoothing)


def _log_ratios(
    chosen_logps: Tensor, rejected_logps: Tensor, ref_chosen_logps: Tensor, ref_rejected_logps: Tensor
) -> tuple[Tensor, Tensor]:
    chosen, rejected, ref_chosen, ref_rejected = prepare(
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        ref_chosen_logps=ref_chosen_logps,
        ref_rejected_logps=ref_rejected_logps,
    )
    return chosen - ref_chosen, rejected - ref_rejected
