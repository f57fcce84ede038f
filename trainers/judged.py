"""Batches of pairs and rankings as matrices: which responses a row has, their ranks, and which of two is better.

Notation: B rows of up to K responses, S responses and P pairs of responses to one prompt in all, as in
`hf_align.collators.PreferenceCollator`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_align.collators.rankings import preferences_of, ranks_of

LAST = 1 << 20
"""Place of responses that are below all ranked ones, or not there."""


@dataclass(frozen=True)
class Judged:
    """What is said about the responses of a batch.

    Attributes:
        places: Row and column of each of S responses in the matrices.
        present: `[B, K]` whether a row has so many responses.
        ranks: `[B, K]` 0 for the best, -1 below all ranked.
        compared: `[B, K, K]` True for i < j if one is better, or both are alike; each pair once.
        label: `[B, K, K]` P(i better than j); None: the first of each pair is.
        margin: `[B, K, K]` how much better, or None.
    """

    places: tuple[Tensor, Tensor]
    present: Tensor
    ranks: Tensor
    compared: Tensor
    label: Tensor | None
    margin: Tensor | None

    def lay_out(self, values: Tensor) -> Tensor:
        """Values of S responses as `[B, K]`, 0 where a row has no such response."""
        return values.new_zeros(self.present.shape).index_put(self.places, values)

    def best_first(self, values: Tensor, width: int) -> Tensor:
        """Values `[B, K]` of each row by rank, NaN behind its last: `[B, width]`."""
        place = torch.where(self.ranks < 0, LAST, self.ranks).masked_fill(~self.present, LAST + 1)
        order = place.argsort(dim=1, stable=True)
        sorted_values = values.masked_fill(~self.present, torch.nan).gather(1, order)
        return torch.nn.functional.pad(sorted_values, (0, width - sorted_values.shape[1]), value=torch.nan)


@dataclass(frozen=True)
class Drawn:
    """Single votes drawn for a batch.

    Attributes:
        label: `[P]` 1, 0 or .5 for the pairs of each row.
        ranks: `[S]` of the drawn ratings; None for pairs.
    """

    label: Tensor
    ranks: Tensor | None


def judge(inputs: dict[str, Any], counts: Sequence[int], device: torch.device, drawn: Drawn | None = None) -> Judged:
    """Lay out a batch's labels, ranks and margins.

    Args:
        inputs: The batch; without `label` its rows are pairs with the better response first.
        counts: Responses of each row.
        device: The device of the result.
        drawn: Labels and ranks in place of the batch's.
    """
    rows, most = len(counts), max(counts)
    places = [(row, column) for row, count in enumerate(counts) for column in range(count)]
    pairs = [(row, i, j) for row, count in enumerate(counts) for i, j in combinations(range(count), 2)]
    of_responses = _to(torch.tensor(places).T, device)
    of_pairs = _to(torch.tensor(pairs).T, device)

    def matrix(values: Tensor, fill: float) -> Tensor:
        empty = torch.full((rows, most, most), fill, dtype=values.dtype, device=device)
        return empty.index_put(tuple(of_pairs), values)

    label, ranks = inputs.get("label"), inputs.get("ranks")
    if drawn is not None:
        label, ranks = _to(drawn.label, device), None if drawn.ranks is None else _to(drawn.ranks, device)
    if label is None:
        label_matrix, compared = None, matrix(torch.ones(len(pairs), device=device), 0.0).bool()
    else:
        label_matrix, compared = matrix(label.nan_to_num(0.5), 0.5), matrix((~label.isnan()).float(), 0.0).bool()
    if ranks is None:  # pairs
        first_better = torch.ones(rows, device=device) if label is None else label
        ranks = torch.stack([first_better < 0.5, first_better > 0.5], dim=1).long().flatten()
    empty = torch.zeros(rows, most, dtype=torch.long, device=device)
    present = empty.index_put(tuple(of_responses), torch.ones_like(ranks)).bool()
    margin = inputs.get("margin")
    return Judged(
        places=(of_responses[0], of_responses[1]),
        present=present,
        ranks=empty.index_put(tuple(of_responses), ranks),
        compared=compared,
        label=label_matrix,
        margin=None if margin is None else matrix(margin, 0.0),
    )


def draw_votes(votes: Sequence[tuple[int, list[Any]]], *, seed: int, epoch: int) -> Drawn:
    """Draw a pair's vote, or of a ranking one rating of each response.

    The draw depends on the seed, the epoch and the row's number alone: it is the same on any number of processes, in
    any batch and after resuming.

    Args:
        votes: For each row its number in the data set, and a pair's votes or the ratings of each response.
        seed: The run's seed.
        epoch: Number of the epoch, from 0.

    Example:
        >>> from hf_align.trainers.judged import draw_votes
        >>> draw_votes([(0, [1.0, 1.0])], seed=0, epoch=3).label
        tensor([1.])
    """
    labels: list[float] = []
    ranks: list[int] = []
    for number, of_row in votes:
        generator = np.random.default_rng([seed, epoch, number])
        if isinstance(of_row[0], list):
            ratings = [each[generator.integers(len(each))] for each in of_row]
            ranks += ranks_of(ratings)
            labels += preferences_of(ranks_of(ratings))
        else:
            labels.append(of_row[generator.integers(len(of_row))])
    return Drawn(torch.tensor(labels), torch.tensor(ranks) if ranks else None)


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)
