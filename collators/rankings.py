"""One row of several responses to a prompt that people ranked, scored or rated."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any, Literal

from hf_align.collators.rows import RowProblem, Side, join_sides, key_of, read_side, read_value
from hf_align.numbers import number_problem

Judgement = Literal["ranking", "scores", "ratings"]
JUDGEMENTS: tuple[Judgement, ...] = ("ranking", "scores", "ratings")
"""Columns of which a row of responses has one."""
NAME = "response"


@dataclass(frozen=True)
class Ranking:
    """A prompt with K judged responses, in the row's order.

    Attributes:
        prompt: Text or messages.
        responses: K >= 2 of one type, without those that nobody judged.
        ranks: K ranks, 0 for the best; equal ones are tied, -1 is shown and below all that are ranked.
        scores: K scores or mean ratings; None in a row with a `ranking`.
        ratings: The single ratings of each response; None in other rows.
        kept: Numbers of these responses in the row.
        left_out: Number of responses without a score or rating.
    """

    prompt: Side
    responses: tuple[Side, ...]
    ranks: list[int]
    scores: list[float] | None = None
    ratings: list[list[float]] | None = None
    kept: tuple[int, ...] = ()
    left_out: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """What each response is called in messages."""
        return (NAME,) * len(self.responses)


def read_ranking(row: dict[str, Any]) -> Ranking:
    """Read a row's prompt, responses and judgement.

    Args:
        row: `prompt`, `responses`, and `ranking` (0 = best; None or -1 = shown, below all ranked), `scores` (higher is
            better; None = not scored) or `ratings` (a list of single ratings for each response).

    Raises:
        RowProblem: Something is missing, malformed or of another length, a ranking skips a rank, fewer than two
            responses are left, or two are identical.
    """
    judgement = next((name for name in JUDGEMENTS if row.get(name) is not None), "ranking")
    values: Any = row.get(judgement)
    responses: Any = row.get("responses")
    for name, value in (("responses", responses), (judgement, values)):
        if value is None:
            raise RowProblem(f"no {name}", "missing")
        if not isinstance(value, list):
            raise RowProblem(f"{name} that are no list" if name[-1] == "s" else f"a {name} that is no list")
    if len(values) != len(responses):
        raise RowProblem(f"another number of responses than values in {judgement}")
    prompt = read_side(row, "prompt")
    read = {"ranking": _of_ranking, "scores": _of_scores, "ratings": _of_ratings}[judgement]
    kept, ranks, scores, ratings = read(values)
    if len(kept) < 2:
        raise RowProblem(
            "fewer than two responses" if len(responses) < 2 else f"fewer than two responses with {judgement}",
            "missing",
        )
    sides = [read_value(responses[number], NAME) for number in kept]
    if len({isinstance(side, str) for side in sides}) > 1:
        raise RowProblem("text in one response and messages in another")
    if len(set(map(key_of, sides))) < len(sides):
        raise RowProblem("two identical responses", "identical_responses")
    prompt, sides = join_sides(prompt, sides, [NAME] * len(sides))
    return Ranking(prompt, tuple(sides), ranks, scores, ratings, tuple(kept), len(responses) - len(kept))


def vote_share(first: Sequence[float], second: Sequence[float]) -> float:
    """Share of the pairs of one rating of each side in which the first is higher; equal ratings count half.

    Example:
        >>> from hf_align.collators.rankings import vote_share
        >>> vote_share([3, 1], [1, 0])  # 3 > 1, 3 > 0, 1 = 1, 1 > 0
        0.875
    """
    low, high = Counter(second), Counter(first)
    wins = sum(a * b * ((x > y) + 0.5 * (x == y)) for x, a in high.items() for y, b in low.items())
    return wins / (len(first) * len(second))


def preferences_of(ranks: Sequence[int], ratings: Sequence[Sequence[float]] | None = None) -> list[float]:
    """P(i better than j) for each pair i < j of a row, in the order of `itertools.combinations`.

    Args:
        ranks: As `Ranking.ranks`. Two tied responses get .5; two that are both -1 weren't compared and get NaN.
        ratings: As `Ranking.ratings`; then it is the share of people's votes.

    Example:
        >>> from hf_align.collators.rankings import preferences_of
        >>> preferences_of([1, 0, -1])
        [0.0, 1.0, 1.0]
    """
    if ratings is not None:
        return [vote_share(first, second) for first, second in combinations(ratings, 2)]
    return [_preference(*pair) for pair in combinations(ranks, 2)]


def ranks_of(scores: Sequence[float]) -> list[int]:
    """Ranks of scores, 0 for the highest; equal scores share a rank, and none is skipped."""
    rank = {score: number for number, score in enumerate(sorted(set(scores), reverse=True))}
    return [rank[score] for score in scores]


def _preference(first: int, second: int) -> float:
    if first == second:
        return math.nan if first < 0 else 0.5
    return float(second < 0 or 0 <= first < second)


Judged = tuple[list[int], list[int], list[float] | None, list[list[float]] | None]
"""Numbers of the judged responses, with their ranks, scores and ratings."""


def _of_ranking(values: list[Any]) -> Judged:
    ranks = [-1 if value is None else value for value in values]
    if any(isinstance(rank, bool) or not isinstance(rank, int | float) or rank != rank // 1 for rank in ranks):
        raise RowProblem("a rank that is no whole number", "bad_number")
    if min(ranks, default=-1) < -1:
        raise RowProblem("a rank below -1 (which is: shown, below all ranked)", "bad_number")
    counts = Counter(rank for rank in ranks if rank >= 0)
    if not counts:
        raise RowProblem("a ranking without a ranked response", "missing")
    if min(counts) > 0:
        raise RowProblem(f"a ranking that starts at {min(counts):.0f} (the best response has rank 0)", "bad_number")
    place = 0
    for number, rank in enumerate(
        sorted(counts)
    ):  # behind a tie the next rank may follow or leave the tie's places out
        if rank not in (number, place):
            raise RowProblem("a ranking that skips a rank", "bad_number")
        place += counts[rank]
    dense = {int(rank): number for number, rank in enumerate(sorted(counts))}
    return list(range(len(ranks))), [dense.get(rank, -1) for rank in ranks], None, None


def _of_scores(values: list[Any]) -> Judged:
    kept = [number for number, value in enumerate(values) if value is not None]
    for number in kept:
        _check_number(values[number], "score")
    scores = [float(values[number]) for number in kept]
    return kept, ranks_of(scores), scores, None


def _of_ratings(values: list[Any]) -> Judged:
    kept = [number for number, votes in enumerate(values) if votes is not None and votes != []]
    for number in kept:
        if not isinstance(values[number], list):
            raise RowProblem("ratings that are no list of each response's ratings")
        for vote in values[number]:
            _check_number(vote, "rating")
    ratings = [[float(vote) for vote in values[number]] for number in kept]
    scores = [fmean(votes) for votes in ratings]
    return kept, ranks_of(scores), scores, ratings


def _check_number(value: Any, name: str) -> None:
    if problem := number_problem(value):
        raise RowProblem(f"a {name} that is {problem}", "bad_number")
