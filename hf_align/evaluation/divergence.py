"""How far a policy has moved from the reference: KL divergence, estimated on its own responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_align.losses.kl import estimate_kl
from hf_align.statistics import Resampling


def measure_kl(
    logps: Sequence[NDArray[np.float64]],
    reference_logps: Sequence[NDArray[np.float64]],
    resampling: Resampling,
    unit: NDArray[np.intp],
) -> dict[str, Any]:
    """KL(policy || reference) of a whole response, in nats: the estimates of its tokens (Schulman 2020) summed.

    Both are unbiased for the distribution of responses up to the length limit, since every token was drawn from the
    policy's whole distribution. k1 = r; k3 = exp(-r) - 1 + r, r = log pi - log pi_ref. k3 of a sampled token is never
    negative; of a sampled response its mean has less noise than k1's while the policies are close.

    Args:
        logps: `[N]` log-probs of each response's tokens under the policy that wrote them.
        reference_logps: `[N]` the same under the reference.
        resampling: Draws of prompts.
        unit: `[N]` the prompt of each.

    Returns:
        "k1" and "k3" with "..._interval" per response, "per_token" (k1 by tokens), and "responses".
    """
    sums = {
        kind: np.asarray(
            [
                float(estimate_kl(torch.from_numpy(policy), torch.from_numpy(other), kind=kind).sum())
                for policy, other in zip(logps, reference_logps, strict=True)
            ]
        )
        for kind in ("k1", "k3")
    }
    figures: dict[str, Any] = {"responses": len(logps)}
    for kind, values in sums.items():
        figures[kind], figures[f"{kind}_interval"] = resampling.ratio(values, np.ones(len(values)), unit)
    return {**figures, "per_token": float(sums["k1"].sum() / sum(map(len, logps)))}
