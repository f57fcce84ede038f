"""Scores of responses by f-divergences other than the reverse KL (Wang et al. 2023, Beyond Reverse KL)."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

Divergence = Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]
LARGEST_EXPONENT = 80.0
"""exp of it is finite in float32, as are differences of such numbers."""


def divergence_score(log_ratio: Tensor, kind: Divergence, alpha: float = 0.5) -> Tensor:
    """f'(u) of the divergence E_ref[f(u)] at `u = policy / reference`: what replaces log u in losses of differences.

    In the optimum of `E[r] - beta * D_f` the reward of a response is `beta * f'(u)` plus a term of its prompt alone,
    which cancels in the difference between two responses:

    | kind | f'(u) |
    |---|---|
    | reverse_kl | log u (a constant cancels) |
    | forward_kl | 1 - 1/u |
    | js_divergence | log(2u / (1 + u)) |
    | alpha_divergence | (u^(alpha - 1) - 1) / (alpha - 1) |

    Args:
        log_ratio: `[...]` log u, in nats.
        kind: The divergence.
        alpha: In [0, 1]: 0 is forward_kl, 1 reverse_kl. Only of alpha_divergence. (Wang et al. write 1 - alpha.)

    Returns:
        `[...]`; increasing in log u. A response that the policy gives e^80 times less probability than the reference
        has the score of that bound, without gradient, where the true one isn't finite in float32.
    """
    if kind == "js_divergence":
        return math.log(2) + logsigmoid(log_ratio)
    power = {"reverse_kl": 0.0, "forward_kl": -1.0}.get(kind, alpha - 1.0)
    if abs(power) < 1e-6:
        return log_ratio
    return (power * log_ratio).clamp(max=LARGEST_EXPONENT).expm1() / power
