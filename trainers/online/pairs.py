"""Choice of the pairs of a rollout's responses that online DPO trains on.

Notation: D prompts with K responses each, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from hf_align.rewards.judges import TIE
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.labels import Opinions


@dataclass(frozen=True)
class Chosen:
    """The pairs of a rollout, and what became of the others.

    Attributes:
        pairs: `[P, 2]` numbers of the chosen and the rejected response.
        labels: `[P]` probability that the chosen one is better.
        candidates: Pairs that were looked at.
        ties: Of them, those left out since they are tied or the same response twice.
        without_opinion: Of them, those left out for want of an opinion.
    """

    pairs: Tensor
    labels: Tensor
    candidates: int
    ties: int
    without_opinion: int


def choose_pairs(opinions: Opinions, response_ids: Sequence[Sequence[int]], config: OnlineDPOConfig) -> Chosen:
    """Choose pairs by `config.pairs`, and label them by `config.labels`.

    Ties and pairs without an opinion are left out, and so is a response compared with itself: its loss has no gradient.
    With soft labels a tie of two different responses is a label like any other.

    Args:
        opinions: On D x K responses.
        response_ids: The responses, prompt by prompt.
        config: Options of the run.
    """
    values, preferences = opinions.values.tolist(), opinions.preferences.tolist()
    soft, size = config.labels == "soft", config.num_samples
    kept: list[tuple[int, int, float]] = []
    candidates = ties = without_opinion = 0
    for number, (ranks, table) in enumerate(zip(values, preferences, strict=True)):
        of_prompt = list(combinations(range(size), 2)) if config.pairs == "all" else [best_and_worst(ranks)]
        for i, j in of_prompt:
            candidates += 1
            first, second = number * size + i, number * size + j
            # The best and the worst are ordered by their ranks, even where a judge who goes in circles prefers the
            # worst of them to the best.
            by_rank = config.pairs == "best_worst" and not soft
            preference = _order(ranks[i], ranks[j]) if by_rank else table[i][j]
            if i == j or list(response_ids[first]) == list(response_ids[second]):
                ties += 1
            elif math.isnan(preference):
                without_opinion += 1
            elif preference == TIE and not soft:
                ties += 1
            elif preference >= TIE:
                kept.append((first, second, preference if soft else 1.0))
            else:
                kept.append((second, first, 1 - preference if soft else 1.0))
    pairs = torch.tensor([pair[:2] for pair in kept], dtype=torch.long).view(-1, 2)
    return Chosen(pairs, torch.tensor([label for *_, label in kept]), candidates, ties, without_opinion)


def best_and_worst(ranks: Sequence[float]) -> tuple[int, int]:
    """Places of the highest and the lowest number, the first of equals; NaN only where there are fewer than two."""
    known = [place for place, rank in enumerate(ranks) if not math.isnan(rank)]
    if len(known) < 2:
        return 0, 1
    return max(known, key=lambda place: ranks[place]), min(known, key=lambda place: ranks[place])


def _order(first: float, second: float) -> float:
    """1, 1/2 or 0 as the first is more than, equal to or less than the second; NaN if one of them is."""
    if math.isnan(first) or math.isnan(second):
        return math.nan
    return TIE if first == second else float(first > second)
