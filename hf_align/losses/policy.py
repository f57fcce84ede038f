"""Policy-gradient losses: PPO-Clip, REINFORCE, the value loss and the entropy.

Notation: B responses, T tokens. Masks are `[B, T]`, true (or 1) at response tokens; values elsewhere, NaN included,
have no influence. Each loss is the mean over the mask, a scalar; 0 for an empty mask. Advantages, returns and
everything "old" are constants: no gradient flows into them.
"""

import torch
from torch import Tensor

from hf_align.losses.inputs import prepare
from hf_align.losses.logprobs import entropy_from_logps

# exp(20) = 5e8 is far beyond any clip range, while exp(89) overflows fp32 and turns gradients into NaN.
MAX_LOG_RATIO = 20.0


def ppo_clip_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, *, clip_range: float = 0.2
) -> Tensor:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7), negated: `-mean(min(r * A, clip(r, 1 - e, 1 + e) * A))`.

    r = exp(logps - old_logps) is the ratio of policy to rollout policy. The log-ratio is clamped to +-20.

    Args:
        logps: `[B, T]` log-probs of the response tokens under the policy.
        old_logps: `[B, T]`, under the policy that made the rollout.
        advantages: `[B, T]`.
        mask: `[B, T]`.
        clip_range: e, > 0.

    Returns:
        Scalar loss.

    Raises:
        ValueError: Shapes differ, or a clip_range that is not positive.

    Example:
        >>> import torch
        >>> from hf_align.losses import ppo_clip_loss
        >>> logps, old_logps, ones = torch.tensor([[1.5]]).log(), torch.zeros(1, 1), torch.ones(1, 1)
        >>> ppo_clip_loss(logps, old_logps, advantages=ones, mask=ones)  # a ratio of 1.5 counts as 1.2
        tensor(-1.2000)
    """
    if not clip_range > 0:
        raise ValueError(f"clip_range must be positive, got {clip_range}.")
    (logps, old_logps, advantages), mask = _masked(mask, logps=logps, old_logps=old_logps, advantages=advantages)
    ratio = (logps - old_logps.detach()).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    advantages = advantages.detach()
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -_mean(torch.minimum(ratio * advantages, clipped * advantages), mask)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip_range: float | None = None
) -> Tensor:
    """Half the squared error of the value function: `mean(0.5 * (V - R)^2)`.

    With a clip_range, the larger of this error and that of V clipped to within clip_range of its old value: moving V
    further than clip_range gains nothing.

    Args:
        values: `[B, T]` predictions.
        old_values: `[B, T]` predictions at rollout time; used only with a clip_range.
        returns: `[B, T]` targets.
        mask: `[B, T]`.
        clip_range: In units of the return, > 0; None switches clipping off.

    Returns:
        Scalar loss.

    Raises:
        ValueError: Shapes differ, or a clip_range that is not positive.

    Example:
        >>> import torch
        >>> from hf_align.losses import value_loss
        >>> ones = torch.ones(1, 1)
        >>> value_loss(3 * ones, old_values=ones, returns=ones, mask=ones)
        tensor(2.)
    """
    (values, old_values, returns), mask = _masked(mask, values=values, old_values=old_values, returns=returns)
    old_values, returns = old_values.detach(), returns.detach()
    errors = (values - returns).square()
    if clip_range is not None:
        if not clip_range > 0:
            raise ValueError(f"clip_range must be positive or None, got {clip_range}.")
        clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
        errors = torch.maximum(errors, (clipped - returns).square())
    return 0.5 * _mean(errors, mask)


def reinforce_loss(logps: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """REINFORCE (Williams 1992): `-mean(logp * R)`.

    Subtract a baseline and whiten before the call (`hf_align.rl.advantages`).

    Args:
        logps: `[B, T]` log-probs of the response tokens under the policy.
        returns: `[B, T]` returns, or returns minus baseline, from each token on.
        mask: `[B, T]`.

    Returns:
        Scalar loss.

    Raises:
        ValueError: Shapes differ.

    Example:
        >>> import torch
        >>> from hf_align.losses import reinforce_loss
        >>> reinforce_loss(torch.tensor([[-2.0]]), returns=torch.tensor([[3.0]]), mask=torch.ones(1, 1))
        tensor(6.)
    """
    (logps, returns), mask = _masked(mask, logps=logps, returns=returns)
    return -_mean(logps * returns.detach(), mask)


def entropy_from_logits(logits: Tensor) -> Tensor:
    """Entropy of each softmax distribution in nats, from the log-softmax: `[..., V] -> [...]`, fp32.

    Tokens ruled out by a logit of -inf count as 0. `response_logps` gives the same without holding the logits.

    Example:
        >>> import torch
        >>> from hf_align.losses import entropy_from_logits
        >>> entropy_from_logits(torch.zeros(4))  # log 4
        tensor(1.3863)
    """
    (logits,) = prepare(logits=logits)
    return entropy_from_logps(torch.log_softmax(logits, dim=-1))


def _masked(mask: Tensor, **tensors: Tensor) -> tuple[list[Tensor], Tensor]:
    """Prepared tensors with 0 outside the mask (a NaN there would reach the gradients even if multiplied by 0)."""
    *values, mask = prepare(**tensors, mask=mask)
    return [value.masked_fill(mask == 0, 0.0) for value in values], mask


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum() / mask.sum().clamp(min=1.0)
