"""The branch layout compared with plain rows on a real model: the difference, and how much of it is noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hf_align.layout.branches import Branches, Document, build_branches

PROMPT_TOKENS, RESPONSE_TOKENS = 64, 32
"""Tokens compared of a prompt (its end) and of a response (its start): a mask is honoured at any length or at none."""


def compare_layouts(
    numbers: Callable[[Branches], Tensor], documents: Sequence[Document], device: torch.device
) -> tuple[Tensor, Tensor, Branches]:
    """Compute the same numbers in the branch layout and in plain rows.

    Args:
        numbers: Log-probs or rewards of a batch, flat, in the documents' order.
        documents: Prompts with their responses; two are enough. Long ones are cut.
        device: Where the model is.

    Returns:
        The mean difference between the layouts (infinite if the model fails on branches), the mean difference between
        plain rows and plain rows under another padding, which is the noise to compare it with, and the plain batch.
    """

    documents = [(p[-PROMPT_TOKENS:], [r[:RESPONSE_TOKENS] for r in responses]) for p, responses in documents]

    def laid_out(documents: Sequence[Document], separate: bool) -> Branches:
        batch = build_branches(documents, pad_token_id=0)
        return (batch.as_separate() if separate else batch).to(device)

    plain = laid_out(documents, True)
    expected = numbers(plain)
    alone = numbers(laid_out(documents[:1], True))
    noise = (alone - expected[: len(alone)]).abs().mean()
    try:
        difference = (numbers(laid_out(documents, False)) - expected).abs().mean()
    except (RuntimeError, ValueError, TypeError, IndexError):  # state-space layers trip over the mask's shape
        difference = torch.full_like(noise, torch.inf)
    return difference, noise, plain


ROUNDING = 0.15
"""Mean difference in nats that rounding to 16 bits may cause: the two layouts' kernels round differently.

SmolLM2-135M in bfloat16 on a CPU, 30 batches of two pairs: 0.03 to 0.06 where the mask is honoured, with either layout
0.03 to 0.05 away from float32; 0.44 to 0.93 where responses see each other.
"""


def noise_bound(noise: Tensor, *, exact: bool) -> Tensor:
    """Allowed difference of layouts: three times the noise, and 1e-3 in float32 (`exact`) or `ROUNDING` otherwise."""
    return (1e-3 if exact else ROUNDING) + 3 * noise
