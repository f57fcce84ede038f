"""Returns and advantages of token-level episodes, and whitening.

Notation: B responses, T tokens. Masks are `[B, T]`, true (or 1) at response tokens, which are contiguous in each row:
at its left, its right or in the middle. Results are 0 outside the mask, and input values there, NaN included, have
no influence. Everything is fp32 (fp64 if the input is) and a constant: no gradient flows through.
"""

import torch
from torch import Tensor

from hf_align.losses.inputs import prepare


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
    bootstrap: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16).

    `delta_t = r_t + gamma * V_{t+1} - V_t`, `A_t = delta_t + gamma * lam * A_{t+1}`. After the last token the value is
    0: the episode ends there, even if the length limit cut it, since the reward scored the response as cut.

    Args:
        rewards: `[B, T]` reward of each token.
        values: `[B, T]` value of the state in which each token was chosen.
        mask: `[B, T]`.
        gamma: Discount a token.
        lam: 0 gives one-step advantages (low variance, biased by V), 1 gives returns minus values.
        bootstrap: `[B]` value after the last token, for episodes that continue beyond it; default 0.

    Returns:
        Advantages and returns (advantages + values), both `[B, T]`.

    Raises:
        ValueError: Shapes differ, or a row's mask has a hole.

    Example:
        >>> import torch
        >>> from hf_align.rl import gae
        >>> advantages, returns = gae(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2), torch.ones(1, 2), lam=0.5)
        >>> advantages.tolist()
        [[0.5, 1.0]]
    """
    rewards, values, mask = _prepare(mask, rewards=rewards, values=values)
    last = _last_tokens(mask)
    next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    if bootstrap is not None:
        if bootstrap.shape != rewards.shape[:1]:
            raise ValueError(f"bootstrap must be [{rewards.shape[0]}], one value a row, got {list(bootstrap.shape)}.")
        next_values = torch.where(last, bootstrap.to(values.dtype)[:, None], next_values)
    deltas = (rewards + gamma * next_values - values).masked_fill(~mask, 0.0)
    advantages = _discounted_sums(deltas, gamma * lam).masked_fill(~mask, 0.0)
    return advantages, advantages + values


@torch.no_grad()
def discounted_returns(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Return from each token on, `R_t = r_t + gamma * R_{t+1}`: `[B, T]`.

    Args:
        rewards: `[B, T]` reward of each token.
        mask: `[B, T]`.
        gamma: Discount a token.

    Raises:
        ValueError: Shapes differ, or a row's mask has a hole.

    Example:
        >>> import torch
        >>> from hf_align.rl import discounted_returns
        >>> discounted_returns(torch.tensor([[0.0, 1.0]]), torch.ones(1, 2), gamma=0.5).tolist()
        [[0.5, 1.0]]
    """
    rewards, mask = _prepare(mask, rewards=rewards)
    _last_tokens(mask)
    return _discounted_sums(rewards, gamma).masked_fill(~mask, 0.0)


@torch.no_grad()
def group_advantages(returns: Tensor, size: int, *, scale: bool = False) -> Tensor:
    """Returns minus the mean of the prompt's other samples (Kool et al. 2019; RLOO: Ahmadian et al. 2024, eq. 7).

    `A_j = R_j - sum_{k != j} R_k / (G - 1)`, which is `G / (G - 1) * (R_j - mean(R))`. Equal returns give exactly 0.

    Args:
        returns: `[S]` return of each whole response, the G responses to a prompt next to each other.
        size: G, at least 2.
        scale: Divide by the standard deviation (n - 1) of the group's G returns plus 1e-4 (GRPO: Shao et al. 2024,
            section 4.1.2, whose numerator lacks the constant G / (G - 1)). Groups with close returns then count as much
            as those with very different ones, so that another objective is maximised.

    Returns:
        `[S]`.

    Raises:
        ValueError: size is less than 2, or doesn't divide S.

    Example:
        >>> import torch
        >>> from hf_align.rl import group_advantages
        >>> group_advantages(torch.tensor([1.0, 0.0, 0.5, 4.0, 4.0, 4.0]), 3).tolist()
        [0.75, -0.75, 0.0, 0.0, 0.0, 0.0]
    """
    (returns,) = prepare(returns=returns)
    if size < 2 or returns.dim() != 1 or len(returns) % size:
        raise ValueError(f"returns must be [S] with S a multiple of size >= 2, got {list(returns.shape)} and {size}.")
    groups = returns.double().view(-1, size)  # sums of equal fp32 numbers are exact
    advantages = (groups - groups.mean(1, keepdim=True)) * (size / (size - 1))
    if scale:
        advantages = advantages / (groups.std(1, keepdim=True) + 1e-4)
    return advantages.flatten().to(returns.dtype)


@torch.no_grad()
def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True, by_row: bool = False) -> Tensor:
    """Scale to variance 1 over the mask, and shift to mean 0 unless told not to.

    The variance is unbiased (n - 1), and 1e-8 is added to it. A single element has variance 0 and becomes 0 (with
    shift_mean=False it stays as it is). Call it on a whole rollout, before splitting.

    Args:
        x: `[B, T]`, or any shape.
        mask: Same shape; holes are fine.
        shift_mean: False keeps the mean (for rewards, whose sign has a meaning).
        by_row: Mean and variance of each row's elements instead of all: of each response, if rows are responses.

    Returns:
        Same shape as x.

    Raises:
        ValueError: Shapes differ.

    Example:
        >>> import torch
        >>> from hf_align.rl import whiten
        >>> whiten(torch.tensor([[1.0, 3.0]]), torch.ones(1, 2))
        tensor([[-0.7071,  0.7071]])
    """
    x, mask = _prepare(mask, x=x)
    over = -1 if by_row else tuple(range(x.dim()))
    count = mask.sum(over, keepdim=True)
    mean = x.sum(over, keepdim=True) / count.clamp(min=1)
    deviations = (x - mean).masked_fill(~mask, 0.0)
    variance = deviations.square().sum(over, keepdim=True) / (count - 1).clamp(min=1)
    whitened = deviations * torch.rsqrt(variance + 1e-8)
    return whitened if shift_mean else (whitened + mean).masked_fill(~mask, 0.0)


def _prepare(mask: Tensor, **tensors: Tensor) -> list[Tensor]:
    """Prepared tensors with 0 outside the mask, and the mask as bool at the end."""
    *values, mask = prepare(**tensors, mask=mask)
    mask = mask != 0
    return [*(value.masked_fill(~mask, 0.0) for value in values), mask]


def _last_tokens(mask: Tensor) -> Tensor:
    """`[B, T]` bool, true at each row's last token.

    Raises:
        ValueError: A row's mask has a hole; tokens on either side of it are not consecutive.
    """
    last = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    holes = (last.sum(1) > 1).nonzero()
    if holes.numel() > 0:
        raise ValueError(
            f"The response tokens of a row must be contiguous; the mask of row {int(holes[0, 0])} has a hole."
        )
    return last


def _discounted_sums(x: Tensor, decay: float) -> Tensor:
    """`s_t = x_t + decay * s_{t+1}` along the last dimension; 0 after its end."""
    sums = torch.empty_like(x)
    following = x.new_zeros(x.shape[0])
    for t in reversed(range(x.shape[1])):
        sums[:, t] = following = x[:, t] + decay * following
    return sums
