"""Detection of responses that see each other in the branch layout, without rounding from another layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from hf_align.layout.branches import Branches

LEAK = 1e-4
"""Share of its own change by which a response may change others, besides noise."""


def leaks(numbers: Callable[[Branches], Tensor], batch: Branches, values: Tensor, noise: Tensor) -> bool:
    """Whether other tokens in the first response of each document change the numbers of its other responses.

    A small leak, such as through the fading state of a recurrent model, looks like rounding in a comparison of layouts.
    Here shapes are equal, so a respected mask leaves no difference, except for experts' batches that change.

    Args:
        numbers: Log-probs `[N]`, rewards `[S]` or several outputs `[S, C]` of a batch, in the documents' order.
        batch: The batch in the branch layout.
        values: The batch's numbers.
        noise: Mean difference of the numbers caused by rounding.
    """
    ids = batch.input_ids[batch.doc_ids >= 0].unique()
    if len(ids) < 2 or max(batch.num_responses) < 2:
        return False
    swapped = torch.where(batch.input_ids == ids[0], ids[-1], ids[0])
    other = replace(batch, input_ids=torch.where(batch.branch_ids == 1, swapped, batch.input_ids))
    change = (numbers(other) - values).abs()
    first = batch.branch_ids.flatten()[batch.last] == 1  # [S]
    first = first if len(change) == len(first) else first[batch.token_branch]
    return bool((change[~first].mean(0) > noise + LEAK * change[first].mean(0)).any())
