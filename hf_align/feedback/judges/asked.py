"""Asking a judge about people's pairs, each in a random order and some of them again in the other one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_align.data.comparisons import Comparisons
from hf_align.errors import UserError
from hf_align.progress import Progress
from hf_align.rewards.judges import Judge, Judgement, Opinion
from hf_align.statistics import Resampling

BLOCK = 64
"""Pairs asked about at once."""
FEWEST_ONCE = 100
"""Fewest pairs with each text once that are enough; with fewer texts, pairs share them."""


@dataclass(frozen=True)
class Asked:
    """A judge's opinions of P pairs of a data set; NaN where it has none.

    Attributes:
        pairs: `[P]` their numbers in the data.
        unit_name: What the bootstrap draws: "pairs", "prompts" or "texts"; see `draw_pairs`.
        unit: `[P]` each pair's unit.
        other: `[P]` its second unit, where texts are drawn.
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
    unit_name: str
    unit: NDArray[np.intp]
    other: NDArray[np.intp] | None
    preference: NDArray[np.float64]
    sees_order: bool
    shown: NDArray[np.float64]
    shown_probability: NDArray[np.float64]
    flipped: NDArray[np.bool_]
    again: NDArray[np.intp]
    given: NDArray[np.float64]

    @property
    def units(self) -> int:
        """Number of units."""
        return int(max(side.max(initial=-1) for side in (self.unit, self.other) if side is not None)) + 1

    def share(self, name: str, values: NDArray[np.float64], places: NDArray, resampling: Resampling) -> dict[str, Any]:
        """The mean of `[places]` values from 0 to 1 of some of the pairs, as `name`, with its "..._interval"."""
        other = None if self.other is None else self.other[places]
        value, interval = resampling.share(values, self.unit[places], other)
        return {name: value, f"{name}_interval": interval}

    def excess(self, values: NDArray[np.float64], places: NDArray, resampling: Resampling) -> dict[str, Any]:
        """The mean of `[places]` differences as "excess", with its "excess_interval"."""
        other = None if self.other is None else self.other[places]
        value, interval = resampling.ratio(values, np.ones(len(values)), self.unit[places], other)
        return {"excess": value, "excess_interval": interval}


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
    pairs, unit_name = draw_pairs(data, max_pairs, rng)
    swapped = rng.random(len(pairs)) < 0.5
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
    columns = [pairs] if unit_name == "pairs" else [side[pairs] for side in data.pair_units if side is not None]
    _, numbers = np.unique(np.concatenate(columns), return_inverse=True)
    unit, *other = numbers.reshape(len(columns), -1)
    return Asked(
        pairs,
        unit_name,
        unit,
        other[0] if other else None,
        np.where(swapped, 1 - of_left, of_left),
        any(judgement.orders is not None for judgement in once),
        (sides(orders[:, 0]) + 1 - sides(orders[:, 1])) / 2,
        (orders[:, 0] + 1 - orders[:, 1]) / 2,
        np.array([judgement.flipped for judgement in once], dtype=bool),
        repeated,
        (sides(of_left[repeated]) + sides(of_right)) / 2,
    )


def draw_pairs(data: Comparisons, max_pairs: int, rng: np.random.Generator) -> tuple[NDArray[np.intp], str]:
    """Pairs to ask about, and what the bootstrap draws of them.

    All of them, or a random sample of `max_pairs`. Of many texts that are compared with each other the sample has each
    text once: its pairs are then independent, which tells more for a question than pairs that share texts.

    Args:
        data: The pairs.
        max_pairs: Most pairs.
        rng: Draws the sample.

    Returns:
        `[P]` numbers of pairs, ascending, and "pairs" (of texts that occur once), "prompts" or "texts".
    """
    drawn = rng.permutation(len(data.first))
    if data.unit == "texts" and len(drawn) > max_pairs:
        used: set[int] = set()
        once: list[int] = []
        texts = np.stack([data.text_of[data.first], data.text_of[data.second]], axis=1)
        for pair, both in zip(drawn.tolist(), texts[drawn].tolist(), strict=True):
            if used.isdisjoint(both):
                used.update(both)
                once.append(pair)
        if len(once) >= FEWEST_ONCE:
            return np.sort(np.asarray(once[:max_pairs], dtype=np.intp)), "pairs"
    return np.sort(drawn[:max_pairs]), data.unit


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
