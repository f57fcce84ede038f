"""KL divergence from the reference: per-token estimators and the exact value.

The divergence is KL(policy || reference) over the next token, in nats. Everything starts from log-probs, never from
the log of a softmax, which is -inf where a probability underflows.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hf_align.errors import UserError
from hf_align.losses.inputs import prepare
from hf_align.losses.logprobs import DEFAULT_CHUNK_SIZE

# exp(20) = 5e8: a k3 beyond it says nothing more, and exp(89) overflows fp32.
MAX_LOG_RATIO = 20.0


def estimate_kl(logps: Tensor, ref_logps: Tensor, *, kind: Literal["k1", "k2", "k3"] = "k1") -> Tensor:
    """Per-token estimates of KL(policy || reference) from one token sampled from the policy (Schulman 2020).

    With r = log pi - log pi_ref:
    - "k1": `r`; unbiased, can be negative. In the reward it gives the exact KL-regularised gradient; as a loss its
      expected gradient is zero, so it does nothing.
    - "k2": `r^2 / 2`; biased as a value, but its gradient is an unbiased estimate of the gradient of that token's KL:
      the one to use as a loss. (In the KL of a whole response a token also affects the tokens before it, which a
      per-token loss leaves out.)
    - "k3": `exp(-r) - 1 + r`; unbiased and never negative; its gradient is that of the reversed KL, biased for ours.
      The exponent is clamped to 20.

    Args:
        logps: `[...]` log-probs of the sampled tokens under the policy.
        ref_logps: Same shape, under the reference.
        kind: Which estimator.

    Returns:
        Estimates, same shape, fp32, differentiable.

    Raises:
        UserError: Unknown kind.
        ValueError: Shapes differ.

    Example:
        >>> import torch
        >>> from hf_align.losses import estimate_kl
        >>> [estimate_kl(torch.tensor(-1.0), torch.tensor(-2.0), kind=kind).item() for kind in ("k1", "k2")]
        [1.0, 0.5]
    """
    logps, ref_logps = prepare(logps=logps, ref_logps=ref_logps)
    log_ratio = logps - ref_logps
    if kind == "k1":
        return log_ratio
    if kind == "k2":
        return 0.5 * log_ratio.square()
    if kind == "k3":
        return torch.expm1((-log_ratio).clamp(max=MAX_LOG_RATIO)) + log_ratio
    raise UserError(f'The KL estimator must be "k1", "k2" or "k3", got {kind!r}.')


def full_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """Exact KL(policy || reference) of each position's next-token distribution: `[..., V] -> [...]`, fp32, >= 0.

    Tokens that the policy rules out (logit -inf) count as 0; a token that only the reference rules out makes it inf.

    Args:
        logits: `[..., V]`, the policy's.
        ref_logits: Same shape, the reference's.

    Raises:
        ValueError: Shapes differ.

    Example:
        >>> import torch
        >>> from hf_align.losses import full_kl
        >>> full_kl(torch.zeros(2), torch.tensor([1.0, 3.0]).log())  # log(4 / 3) / 2
        tensor(0.1438)
    """
    logits, ref_logits = prepare(logits=logits, ref_logits=ref_logits)
    logps, ref_logps = torch.log_softmax(logits, -1), torch.log_softmax(ref_logits, -1)
    # -inf - -inf is NaN, also in the gradient: take ruled-out tokens out before subtracting.
    ruled_out = logps == -torch.inf
    log_ratio = logps.masked_fill(ruled_out, 0.0) - ref_logps.masked_fill(ruled_out, 0.0)
    return (logps.exp() * log_ratio).sum(-1).clamp(min=0.0)  # rounding may leave -1e-8


def full_kl_in_chunks(
    states: Tensor,
    head: Callable[[Tensor], Tensor],
    ref_states: Tensor,
    ref_head: Callable[[Tensor], Tensor],
    *,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> Tensor:
    """`full_kl` at N positions from their hidden states, without ever holding `[N, V]` logits.

    Each chunk is checkpointed: its logits are computed again in the backward pass.

    Args:
        states: `[N, d]`, the policy's hidden states before its LM head.
        head: `[C, d] -> [C, V]`, the policy's logits as the softmax takes them.
        ref_states: `[N, d']`, the reference's; a constant.
        ref_head: `[C, d'] -> [C, V]`, likewise; no gradient flows into it.
        chunk_size: Rows of logits held at a time.

    Returns:
        `[N]` float32, differentiable with respect to `states` and whatever `head` depends on.
    """

    def one_chunk(states: Tensor, ref_states: Tensor) -> Tensor:
        with torch.no_grad():
            ref_logits = ref_head(ref_states)
        return full_kl(head(states), ref_logits)

    rows = [slice(start, start + chunk_size) for start in range(0, max(len(states), 1), chunk_size)]
    return torch.cat([checkpoint(one_chunk, states[chunk], ref_states[chunk], use_reentrant=False) for chunk in rows])  # type: ignore[arg-type]
