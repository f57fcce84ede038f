"""Asking a judge about people's pairs, each in a random order and some of them again in the other one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_align.data.comparisons import Comparisons
from hf_align.errors import UserError
from hf_align.progress import Progress
from hf_align.rewards.judges import Judge, Judgement, Opinion

BLOCK = 64
"""Pairs asked about at once."""


@dataclass(frozen=True)
class Asked:
    """A judge's opinions of P pairs of a data set; NaN where it has none.

    Attributes:
        pairs: `[P]` their numbers in the data.
        preference: `[P]` probability that the first response is better.
        sees_order: Whether the judge says how it decided in each order.
        shown: `[P]` share of the two orders in which it chose the response shown first, a tie half; NaN for a judge
            that sees no order.
        shown_probability: `[P]` the mean probability that it gave to the response shown first.
        flipped: `[P]` whether its choice changed with the order.
        again: `[M]` places, among the P, of the pairs asked about again with the responses in the other order.
        given: `[M]` share of the two times in which the judgement went with the response given first, a tie half.
    """

    pairs: NDArray[np.intp]
    preference: NDArray[np.float64]
    sees_order: bool
    shown: NDArray[np.float64]
    shown_probability: NDArray[np.float64]
    flipped: NDArray[np.bool_]
    again: NDArray[np.intp]
    given: NDArray[np.float64]


def ask_about(judge: Judge, data: Comparisons, *, max_pairs: int, again: int, seed: int, progress: Progress) -> Asked:
    """Ask about a data set's pairs, or a sample of them.

    Which response of a pair is given first is drawn, since in pairs of chosen and rejected the better one stands first.

    Args:
        judge: The judge.
        data: The pairs.
        max_pairs: Most pairs asked about.
        again: Most of them asked about again, in the other order.
        seed: Of the sample and the orders.
        progress: Receiver of progress.

    Raises:
        UserError: The judge fails, or doesn't give one judgement a pair.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(len(data.first))[:max_pairs]
    pairs, swapped = np.sort(drawn), rng.random(len(drawn)) < 0.5
    repeated = np.sort(rng.permutation(len(pairs))[:again])
    first, second = data.first[pairs], data.second[pairs]
    left, right = np.where(swapped, second, first), np.where(swapped, first, second)
    with progress.task(f"asking {judge.name}", len(pairs) + len(repeated)) as advance:
        once = _judge(judge, data, left, right, lambda done: advance(done, ""))
        mirrored = _judge(
            judge, data, right[repeated], left[repeated], lambda done: advance(len(pairs) + done, "other order")
        )
    of_left = np.array([_number(each.preference) for each in once])
    orders = np.array([[_number(each) for each in judgement.orders or (None, None)] for judgement in once])
    orders = orders.reshape(-1, 2)
    of_right = np.array([_number(each.preference) for each in mirrored])
    return Asked(
        pairs,
        np.where(swapped, 1 - of_left, of_left),
        any(judgement.orders is not None for judgement in once),
        (sides(orders[:, 0]) + 1 - sides(orders[:, 1])) / 2,
        (orders[:, 0] + 1 - orders[:, 1]) / 2,
        np.array([judgement.flipped for judgement in once], dtype=bool),
        repeated,
        (sides(of_left[repeated]) + sides(of_right)) / 2,
    )


def sides(preference: ArrayLike) -> NDArray[np.float64]:
    """1 where a preference is for the first, 0 for the second, 1/2 for a tie; NaN where there is none."""
    return (1 + np.sign(np.asarray(preference, dtype=float) - 0.5)) / 2


def _judge(
    judge: Judge, data: Comparisons, left: NDArray, right: NDArray, advance: Callable[[int], None]
) -> list[Judgement]:
    """Judgements of pairs of entries, with the left one given first."""
    judgements: list[Judgement] = []
    for start in range(0, len(left), BLOCK):
        firsts, seconds = ([data.texts[n] for n in data.text_of[side[start : start + BLOCK]]] for side in (left, right))
        prompts = [each.prompt for each in firsts]
        said = judge.compare(prompts, [each.text for each in firsts], [each.text for each in seconds])
        if len(said) != len(prompts):
            raise UserError(
                f"judge {judge.name!r} gave {len(said)} judgements on {len(prompts)} pairs; return one for each"
            )
        judgements += said
        advance(len(judgements))
    return judgements


def _number(opinion: Opinion) -> float:
    return float("nan") if opinion is None else float(opinion)
