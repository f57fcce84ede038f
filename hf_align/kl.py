"""KL divergence from the reference: estimators per token, the exact value, and controllers of its coefficient.

The divergence is KL(policy || reference) over the next token, in nats. Everything starts from log-probs, never from
the log of a softmax, which is -inf where a probability underflows.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hf_align.errors import UserError
from hf_align.logprobs import DEFAULT_CHUNK_SIZE
from hf_align.losses.inputs import prepare

# exp(20) = 5e8: a k3 beyond it says nothing more, and exp(89) overflows fp32.
MAX_LOG_RATIO = 20.0


def estimate_kl(logps: Tensor, ref_logps: Tensor, *, kind: Literal["k1", "k2", "k3"] = "k1") -> Tensor:
    """Per-token estimates of KL(policy || reference) from one token sampled from the policy (Schulman 2020).

    With r = log pi - log pi_ref:
    - "k1": `r`; unbiased, can be negative. In the reward it gives the exact KL-regularised gradient; as a loss it has
      an expected gradient of zero and does nothing.
    - "k2": `r^2 / 2`; biased as a value, but its gradient is an unbiased estimate of that token's KL's: the one to use
      as a loss. (In a response's KL a token counts for those before it, too, which a loss over tokens leaves out.)
    - "k3": `exp(-r) - 1 + r`; unbiased and never negative; its gradient is that of the reversed KL, biased for ours.
      The exponent is held below 20.

    Args:
        logps: `[...]` log-probs of the sampled tokens under the policy.
        ref_logps: Same shape, under the reference.
        kind: Which estimator.

    Returns:
        Estimates, same shape, fp32, differentiable.

    Raises:
        UserError: Unknown kind.
        ValueError: Shapes differ.
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
        logits: `[..., V]` of the policy.
        ref_logits: Same shape, of the reference.

    Raises:
        ValueError: Shapes differ.
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
    """`full_kl` of N positions from their hidden states, without ever holding `[N, V]` logits.

    Each chunk is checkpointed: its logits are computed again in the backward pass.

    Args:
        states: `[N, d]` of the policy, before its LM head.
        head: `[C, d] -> [C, V]`, the policy's logits as the softmax takes them.
        ref_states: `[N, d']` of the reference; a constant.
        ref_head: `[C, d'] -> [C, V]` likewise; no gradient flows into it.
        chunk_size: Rows of logits held at a time.

    Returns:
        `[N]` float32, differentiable with respect to `states` and whatever `head` depends on.
    """

    def one_chunk(states: Tensor, ref_states: Tensor) -> Tensor:
        with torch.no_grad():
            ref_logits = ref_head(ref_states)
        return full_kl(head(states), ref_logits)

    parts = [
        checkpoint(
            one_chunk, states[start : start + chunk_size], ref_states[start : start + chunk_size], use_reentrant=False
        )
        for start in range(0, max(len(states), 1), chunk_size)
    ]
    return torch.cat(parts)  # type: ignore[arg-type]


@dataclass
class FixedKLController:
    """A KL coefficient that stays as it is; the interface of all controllers.

    Args:
        coef: The coefficient, >= 0.

    Raises:
        UserError: A negative or NaN coefficient.
    """

    coef: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.coef < math.inf:
            raise UserError(f"The KL coefficient must be 0 or more, got {self.coef}.")

    def update(self, kl: float, n_episodes: int) -> float:
        """Take in one rollout and return the coefficient for the next.

        Args:
            kl: KL from the reference in nats, summed over a response's tokens, averaged over the rollout.
            n_episodes: Responses in the rollout, over all processes.

        Raises:
            ValueError: kl is NaN (it would make the coefficient NaN for good).
        """
        if math.isnan(kl):
            raise ValueError("The measured KL is NaN: the policy's log-probs broke before the coefficient could react.")
        self.coef = self._next(kl, n_episodes)
        return self.coef

    def _next(self, kl: float, n_episodes: int) -> float:
        return self.coef

    def state_dict(self) -> dict[str, float]:
        """Coefficient and hyper-parameters, as plain numbers."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as the saved controller would have, its hyper-parameters included.

        Raises:
            ValueError: The state is of another kind of controller.
        """
        names = {field.name for field in fields(self)}
        if set(state) != names:
            raise ValueError(f"{type(self).__name__} has the fields {sorted(names)}, the saved state {sorted(state)}.")
        for name, value in state.items():
            setattr(self, name, value)


@dataclass
class _AdaptiveKLController(FixedKLController):
    target: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.target < math.inf:
            raise UserError(f"The target KL must be greater than 0, got {self.target}.")

    def _check_bounds(self, lowest: float, highest: float) -> None:
        if not 0.0 < lowest <= self.coef <= highest:
            raise UserError(f"The KL coefficient must start within its bounds [{lowest}, {highest}], got {self.coef}.")


@dataclass
class ThresholdKLController(_AdaptiveKLController):
    """Raises the coefficient when the KL is far above its target, lowers it when far below, else leaves it.

    Above 1.5 * target it is multiplied by `factor`, below 0.5 * target by `shrink`, within [min_coef, max_coef].

    Args:
        coef: Starting coefficient, within the bounds.
        target: KL to keep to, in nats a response; > 0.
        factor: > 1.
        shrink: In (0, 1).
        min_coef: Lower bound, > 0: from 0 no factor would ever lead back.
        max_coef: Upper bound.

    Raises:
        UserError: A value out of range.
    """

    factor: float = 1.5
    shrink: float = 0.5
    min_coef: float = 1e-4
    max_coef: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_bounds(self.min_coef, self.max_coef)
        if not (self.factor > 1.0 > self.shrink > 0.0):
            raise UserError(f"factor must be > 1 and shrink in (0, 1), got {self.factor} and {self.shrink}.")

    def _next(self, kl: float, n_episodes: int) -> float:
        if kl > 1.5 * self.target:
            return min(self.coef * self.factor, self.max_coef)
        if kl < 0.5 * self.target:
            return max(self.coef * self.shrink, self.min_coef)
        return self.coef


@dataclass
class ProportionalKLController(_AdaptiveKLController):
    """Moves the coefficient in proportion to the KL's relative error (Ziegler et al. 2019, section 2.2).

    `coef *= 1 + e * n / horizon`, with `e = clip(kl / target - 1, -0.2, 0.2)` and n episodes in the rollout, within
    [min_coef, max_coef].

    Args:
        coef: Starting coefficient, within the bounds.
        target: KL to keep to, in nats a response; > 0.
        horizon: Episodes over which the coefficient can change by about 20%; > 0. Ziegler et al.: 10,000.
        min_coef: Lower bound, > 0: from 0 no factor would ever lead back.
        max_coef: Upper bound.

    Raises:
        UserError: A value out of range.
    """

    horizon: float
    min_coef: float = 1e-4
    max_coef: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_bounds(self.min_coef, self.max_coef)
        if not 0.0 < self.horizon < math.inf:
            raise UserError(f"horizon must be greater than 0 episodes, got {self.horizon}.")

    def _next(self, kl: float, n_episodes: int) -> float:
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        return min(max(self.coef * (1.0 + error * n_episodes / self.horizon), self.min_coef), self.max_coef)
