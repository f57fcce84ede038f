"""Comparison of a batch's layouts with a model's numbers for each row computed alone, and the bound for rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_align.layout.branches import Branches, Document, build_branches, row_length
from hf_align.layout.leaks import leaks

Numbers = Callable[[Branches], Tensor]
"""Log-probs `[N]`, rewards `[S]` or several outputs `[S, C]` of a batch, in the documents' order."""


@dataclass(frozen=True)
class Differences:
    """Mean differences of layouts from the model's numbers for each row computed alone, scalars in nats or reward.

    Attributes:
        plain: Of plain rows, padded to the same length: rounding, if the model is what it should be.
        branch: Difference of the branch layout; infinite if the model fails on it or responses see each other, 0 if
            left out.
        width: Tokens of a row in the branch layout.
    """

    plain: Tensor
    branch: Tensor
    width: int


def compare_layouts(
    numbers: Numbers,
    documents: Sequence[Document],
    device: torch.device,
    *,
    alone: Numbers | None = None,
    row_tokens: int | None = None,
    branch: bool = True,
) -> Differences:
    """Compute the same numbers in each layout and row by row.

    Args:
        numbers: Calls the model.
        documents: Prompts with their responses; see `to_compare`.
        device: The model's device.
        alone: Computes the numbers of plain rows, each row alone. Default: `numbers`, called for each row.
        row_tokens: As in `build_branches`.
        branch: Also compute the branch layout.
    """
    branches = build_branches(documents, pad_token_id=0, row_tokens=row_tokens).to(device)
    plain = branches.as_separate()
    if alone is not None:
        expected = alone(plain)
    else:
        rows = [(prompt, [response]) for prompt, responses in documents for response in responses]
        batches = (build_branches([row], pad_token_id=0).as_separate().to(device) for row in rows)
        expected = torch.cat([numbers(batch) for batch in batches])
    of_plain = _difference(numbers(plain), expected)
    of_branch = torch.zeros_like(of_plain)
    if branch:
        try:
            values = numbers(branches)
            of_branch = _difference(values, expected)
            if leaks(numbers, branches, values, of_plain):
                of_branch = torch.full_like(of_plain, torch.inf)
        except (RuntimeError, ValueError, TypeError, IndexError):  # state-space layers trip over the mask's shape
            of_branch = torch.full_like(of_plain, torch.inf)
    return Differences(of_plain, of_branch, branches.input_ids.shape[1])


def _difference(values: Tensor, expected: Tensor) -> Tensor:
    """Mean difference; of several outputs, that of the one that differs most."""
    return (values - expected).abs().mean(0).max()


ROUNDING = 0.15
"""Mean difference in nats that rounding to 16 bits may cause: the two layouts' kernels round differently.

SmolLM2-135M in bfloat16 on a CPU, 30 batches of two pairs: 0.03 to 0.06 where the mask is honoured, with either layout
0.03 to 0.05 away from float32; 0.44 to 0.93 where responses see each other.
"""


def noise_bound(noise: Tensor, *, exact: bool) -> Tensor:
    """Allowed difference of layouts: three times the noise, and 1e-3 in float32 (`exact`) or `ROUNDING` otherwise."""
    return (1e-3 if exact else ROUNDING) + 3 * noise


# ---- documents to compare ----

LEAST_TOKENS = 384
"""Minimum number of tokens of plain rows to compare, however short a run: four rows of 96."""


def longest_documents(documents: Sequence[Document], count: int = 2) -> list[Document]:
    """The `count` documents with the longest rows, each with its two longest responses, enough to check a mask."""
    chosen = sorted(documents, key=row_length, reverse=True)[:count]
    return [(prompt, sorted(responses, key=len, reverse=True)[:2]) for prompt, responses in chosen]


def to_compare(documents: Sequence[Document], most_tokens: int) -> list[Document]:
    """Select documents, cut if needed, with at most `most_tokens` tokens in plain rows.

    All of them, or the two with the longest rows, or the longest rows cut, but at least `LEAST_TOKENS`.
    """
    most_tokens = max(most_tokens, LEAST_TOKENS)
    for chosen in (list(documents), longest_documents(documents)):
        if plain_tokens(chosen) <= most_tokens:
            return chosen
    rows = sum(len(responses) for _, responses in chosen)
    return cut(chosen, most_tokens // rows)


def cut(documents: Sequence[Document], most: int) -> list[Document]:
    """Documents cut to rows of at most `most` tokens: prompts lose their start, long responses their end."""
    result: list[Document] = []
    for prompt, responses in documents:
        if row_length((prompt, responses)) > most:
            responses = [response[: max(1, most // 3)] for response in responses]
            prompt = prompt[-max(1, most - max(map(len, responses))) :]
        result.append((prompt, responses))
    return result


def plain_tokens(documents: Sequence[Document]) -> int:
    """Tokens of the documents in plain rows."""
    return sum(len(prompt) * len(responses) + sum(map(len, responses)) for prompt, responses in documents)
