"""Judges of pairs: which of two responses to a prompt is better, asked so that their order can't decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

from hf_align.collators.rows import Side
from hf_align.errors import UserError
from hf_align.numbers import is_number

TIE = 0.5
Opinion = float | None
"""Probability from 0 to 1 that the first response is better; 1/2: a tie; None: no opinion."""
Ask = Callable[[Sequence[Side], Sequence[Side], Sequence[Side]], Sequence[Opinion]]
"""Opinions on `[N]` prompts with the response shown first and the one shown second: is the one shown first better?"""


@dataclass(frozen=True)
class Judgement:
    """A judge's opinion of two responses.

    Attributes:
        preference: Probability from 0 to 1 that the first is better; 1/2 is a tie, None no opinion.
        orders: The same as the judge said it with the first response shown first, and with it shown second. None where
            the judge doesn't see an order.

    Example:
        >>> from hf_align.rewards import Judgement
        >>> always_the_one_on_the_left = Judgement(0.5, orders=(1.0, 0.0))
        >>> always_the_one_on_the_left.flipped, always_the_one_on_the_left.label
        (True, 0.5)
    """

    preference: Opinion
    orders: tuple[Opinion, Opinion] | None = None

    @property
    def label(self) -> Opinion:
        """1 (the first is better), 0 or 1/2; None without an opinion."""
        return None if self.preference is None else side_of(self.preference)

    @property
    def flipped(self) -> bool:
        """Whether the judge's choice changed with the order."""
        if self.orders is None or None in self.orders:
            return False
        sides = {side_of(opinion) for opinion in self.orders if opinion is not None}
        return {0.0, 1.0} <= sides


@runtime_checkable
class Judge(Protocol):
    """What compares two responses; `hf_align.feedback` has judges that are models, rewards, endpoints and functions.

    Example:
        >>> from hf_align.rewards import Judge, Judgement
        >>> class Shorter:
        ...     name = "shorter"
        ...     def compare(self, prompts, firsts, seconds):
        ...         return [Judgement(float(len(a) < len(b))) for a, b in zip(firsts, seconds)]
        >>> isinstance(Shorter(), Judge)
        True
    """

    @property
    def name(self) -> str:
        """Name in reports and stores."""
        ...

    def compare(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[Judgement]:
        """Judge `[N]` pairs of responses to `[N]` prompts."""
        ...


def side_of(preference: float) -> float:
    """1 where the first response is preferred, 0 where the second is, 1/2 for a tie."""
    return TIE if preference == TIE else float(preference > TIE)


def combine_orders(forward: Opinion, backward: Opinion) -> Judgement:
    """One judgement from an opinion in each order.

    Args:
        forward: Probability that the first is better, said with the first shown first.
        backward: The same, said with the first shown second.

    Returns:
        Their mean where both prefer the same response, or one of them is a tie; a tie where they contradict each other;
        no opinion where one of them is missing.
    """
    if forward is None or backward is None:
        return Judgement(None, (forward, backward))
    judgement = Judgement((forward + backward) / 2, (forward, backward))
    return Judgement(TIE, judgement.orders) if judgement.flipped else judgement


def judge_orders(ask: Ask, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[Judgement]:
    """Judge pairs by asking about each in both orders.

    Raises:
        UserError: `ask` gives another number of opinions than it got pairs, or one that is none.
    """
    count = len(prompts)
    said = ask([*prompts, *prompts], [*firsts, *seconds], [*seconds, *firsts])
    if len(said) != 2 * count:
        raise UserError(f"the judge gave {len(said)} opinions on {2 * count} pairs; return one for each")
    opinions = [_checked(opinion) for opinion in said]
    return [
        combine_orders(forward, None if backward is None else 1 - backward)
        for forward, backward in zip(opinions[:count], opinions[count:], strict=True)
    ]


def _checked(opinion: Any) -> Opinion:
    if opinion is not None and not (is_number(opinion) and 0 <= opinion <= 1):
        raise UserError(f"the judge said {opinion!r}; return a number from 0 to 1, or None for no opinion")
    return None if opinion is None else float(opinion)


def compare_all(
    judge: Judge, prompts: Sequence[Side], responses: Sequence[Sequence[Side]]
) -> list[list[list[Opinion]]]:
    """Preferences between all responses to each prompt; a response that equals another is tied with it unasked.

    Args:
        judge: The judge.
        prompts: `[N]` prompts.
        responses: `[N]` lists of K responses, each prompt with its own K.

    Returns:
        `[N]` tables `[K, K]`: whether the response of the row is better than that of the column. An opinion on i and j
        is one of K(K - 1)/2 asked for, and 1 minus it that on j and i.
    """
    asked = [
        (number, i, j)
        for number, group in enumerate(responses)
        for i, j in combinations(range(len(group)), 2)
        if group[i] != group[j]
    ]
    judgements = judge.compare(
        [prompts[number] for number, _, _ in asked],
        [responses[number][i] for number, i, _ in asked],
        [responses[number][j] for number, _, j in asked],
    )
    tables: list[list[list[Opinion]]] = [[[TIE] * len(group) for _ in group] for group in responses]
    for (number, i, j), judgement in zip(asked, judgements, strict=True):
        opinion = judgement.preference
        tables[number][i][j] = opinion
        tables[number][j][i] = None if opinion is None else 1 - opinion
    return tables


def rank_responses(
    judge: Judge, prompts: Sequence[Side], responses: Sequence[Sequence[Side]]
) -> list[list[float | None]]:
    """Scores of several responses to each prompt: the mean preference over the prompt's other responses.

    Args:
        judge: The judge, asked as by `compare_all`.
        prompts: `[N]` prompts.
        responses: `[N]` lists of at least two responses.

    Returns:
        `[N]` lists of scores from 0 to 1, which average 1/2; None for a response on which the judge has no opinion at
        all.
    """
    return list(map(mean_over_others, compare_all(judge, prompts, responses)))


def mean_over_others(table: Sequence[Sequence[Opinion]]) -> list[float | None]:
    """Scores of a prompt's K responses from a table of `compare_all`."""
    means: list[float | None] = []
    for i, row in enumerate(table):
        opinions = [opinion for j, opinion in enumerate(row) if j != i and opinion is not None]
        means.append(sum(opinions) / len(opinions) if opinions else None)
    return means
