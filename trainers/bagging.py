"""Bootstrap samples of rows for the members of an ensemble (bagging: Breiman, 1996).

Prompts are drawn with replacement, each with all of its rows: a prompt drawn twice brings its rows twice, and no prompt
is both in a member's bag and among the rows left out. Of data with few prompts, rows are drawn one by one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

FEWEST_PROMPTS = 20
"""With fewer prompts, single rows are drawn: a bag of a few prompts would lack most of the data."""


@dataclass(frozen=True)
class Bag:
    """Rows drawn for one member.

    Attributes:
        rows: Numbers of the drawn rows in ascending order, repeated as often as they were drawn.
        left_out: Numbers of the others.
        unit: What was drawn: "prompts" or "rows".
    """

    rows: list[int]
    left_out: list[int]
    unit: str

    @property
    def different(self) -> int:
        """How many different rows were drawn."""
        return len(set(self.rows))


def rows_by_prompt(prompts: Iterable[Hashable]) -> list[list[int]]:
    """Numbers of the rows of each prompt, in the order of their first rows."""
    by_prompt: dict[Hashable, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_prompt.setdefault(prompt, []).append(number)
    return list(by_prompt.values())


def row_groups(prompts: Iterable[Hashable]) -> list[list[int]]:
    """Numbers of the rows that are drawn together: those of one prompt, or of few prompts single rows.

    Args:
        prompts: Each row's prompt.
    """
    groups = rows_by_prompt(prompts)
    return groups if len(groups) >= FEWEST_PROMPTS else [[row] for row in sorted(chain.from_iterable(groups))]


def draw_bag(groups: Sequence[Sequence[int]], share: float | None, seed: int) -> Bag:
    """Draw `share` times as many groups as there are, with replacement.

    With replacement, `share` s leaves exp(-s) of many groups out: .45 of them at .8, .37 at 1.

    Args:
        groups: Rows that are drawn together, from `row_groups`.
        share: In (0, 1]; None takes every row once.
        seed: Of the draw, which depends on nothing else.

    Example:
        >>> from hf_align.trainers.bagging import draw_bag
        >>> bag = draw_bag([[0], [1], [2], [3], [4]], 0.8, seed=0)
        >>> len(bag.rows), sorted({*bag.rows, *bag.left_out})
        (4, [0, 1, 2, 3, 4])
    """
    unit = "prompts" if any(len(group) > 1 for group in groups) else "rows"
    if share is None:
        return Bag(sorted(row for group in groups for row in group), [], unit)
    draws = np.random.default_rng(seed).integers(len(groups), size=max(1, round(share * len(groups))))
    drawn = set(draws.tolist())
    return Bag(
        sorted(row for number in draws for row in groups[number]),
        sorted(row for number, group in enumerate(groups) if number not in drawn for row in group),
        unit,
    )
