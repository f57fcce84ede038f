"""Conversion of people's comparisons or ratings of responses to chosen/rejected pairs.

Prompts and responses are strings or conversations (lists of `{"role": ..., "content": ...}`) and are passed on
unchanged. Every function counts the rows it leaves out, returns the counts and logs them.
"""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from numbers import Real
from typing import Any, Literal

from datasets import Dataset

from hf_align.collators.tools import to_dataset
from hf_align.errors import UserError
from hf_align.numbers import number_problem

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
_GAP_DIGITS = 9  # so that a gap of 2.8 - 2.3 is .5 and not .49999999999999982


@dataclass(frozen=True)
class ComparisonReport:
    """Counts of `comparisons_to_pairs`: rows in, pairs out, and the reasons for the difference.

    Example:
        >>> from hf_align.data import comparisons_to_pairs
        >>> rows = [{"prompt": "The film was", "response_a": " a joy.", "response_b": " fine.", "preference": 0.5}]
        >>> pairs, report = comparisons_to_pairs(rows)
        >>> report
        ComparisonReport(rows=1, pairs=0, ties_dropped=1, ties_kept=0, identical=0)
    """

    rows: int
    pairs: int
    ties_dropped: int
    ties_kept: int
    identical: int


@dataclass(frozen=True)
class RatingReport:
    """Counts of `ratings_to_pairs`: rows and prompts in, pairs out, and candidate pairs left out.

    Example:
        >>> from hf_align.data import ratings_to_pairs
        >>> ratings = {" a joy.": 4.5, " fine.": 3.0, " all right.": 2.8}
        >>> rows = [{"prompt": "The film was", "response": text, "rating": rating} for text, rating in ratings.items()]
        >>> pairs, report = ratings_to_pairs(rows, min_gap=1.0)
        >>> report.pairs, report.below_gap
        (2, 1)
    """

    rows: int
    prompts: int
    pairs: int
    below_gap: int
    identical: int
    single_response: int


def comparisons_to_pairs(
    rows: Dataset | Iterable[Row], *, ties: Literal["drop", "keep"] = "drop"
) -> tuple[Dataset, ComparisonReport]:
    """Turn pairwise comparisons into chosen/rejected pairs.

    A kept tie means that either order is equally likely, so its loss is `0.5 * loss(a, b) + 0.5 * loss(b, a)`. It
    becomes two rows, one in each order, with 0.5 in a `weight` column (1 for decided comparisons), which multiplies a
    row's loss. A row of margin 0 could not represent it: margin-weighted Bradley-Terry would ignore it.

    Args:
        rows: comparisons with `prompt`, `response_a`, `response_b` and `preference`: 1 when a was preferred, 0 when b
            was, 0.5 for a tie. Other columns are kept.
        ties: "drop" (default) or "keep".

    Returns:
        The pairs, with `prompt`, `chosen`, `rejected`, the other columns and, when ties are kept, `weight`; and the
        counts. Comparisons of a response with itself are left out and counted as `identical`.

    Raises:
        UserError: if a row lacks a column, a preference is none of 0, 0.5 and 1, `ties` is neither "drop" nor "keep",
            or ties are to be kept of rows with a `margin` (a tie has none) or a `weight` column.
    """
    if ties not in ("drop", "keep"):
        raise UserError(f'ties must be "drop" or "keep", not {ties!r}')
    taken = ("chosen", "rejected") if ties == "drop" else ("chosen", "rejected", "weight", "margin")
    columns: list[str] = ["prompt", "chosen", "rejected", *(["weight"] if ties == "keep" else [])]
    pairs: list[dict[str, Any]] = []
    total = tied = identical = 0
    for total, row in enumerate(_mappings(rows), start=1):
        prompt, a, b, preference = _fields(row, total - 1, ("prompt", "response_a", "response_b", "preference"))
        if clash := [name for name in taken if name in row]:
            raise UserError(f"row {total - 1} has a column {clash[0]!r}, which can't be kept: remove it")
        if isinstance(preference, bool) or preference not in (0, 0.5, 1):
            raise UserError(f"row {total - 1}: preference must be 0, 0.5 or 1, not {preference!r}")
        if a == b:
            identical += 1
            continue
        tied += preference == 0.5
        extra = {k: v for k, v in row.items() if k not in ("prompt", "response_a", "response_b", "preference")}
        columns += [name for name in extra if name not in columns]
        orders = [(a, b)] if preference == 1 else [(b, a)]
        if preference == 0.5:
            orders = [(a, b), (b, a)] if ties == "keep" else []
        for chosen, rejected in orders:
            weight = {"weight": 1.0 / len(orders)} if ties == "keep" else {}
            pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, **weight, **extra})
    ties_kept = tied if ties == "keep" else 0
    report = ComparisonReport(
        total, len(pairs), ties_dropped=tied - ties_kept, ties_kept=ties_kept, identical=identical
    )
    logger.info("Comparisons to pairs: %s", _counts(report))
    return _to_dataset(pairs, columns), report


def ratings_to_pairs(rows: Dataset | Iterable[Row], *, min_gap: float) -> tuple[Dataset, RatingReport]:
    """Turn rated responses into all pairs of one prompt's responses whose ratings are far enough apart.

    Args:
        rows: rated responses with `prompt`, `response` and `rating`: one number, or the list of the raters' votes,
            whose mean counts. Other columns are not kept: they belong to one response, not to a pair.
        min_gap: a pair is made if the gap of its ratings is larger than this (>= 0, in rating points; compared after
            rounding to 9 decimals).

    Returns:
        The pairs, with `prompt`, `chosen`, `rejected`, `margin` (the gap), `chosen_ratings` and `rejected_ratings`
        (every vote behind the two ratings), prompts in order of first appearance; and the counts. Pairs of equal texts
        are left out and counted as `identical`.

    Raises:
        UserError: if a row lacks a column, a rating is not a finite number or a non-empty list of such, or `min_gap` is
            negative or not finite.
    """
    if number_problem(min_gap) or min_gap < 0:
        raise UserError(f"min_gap must be a number of rating points >= 0, not {min_gap!r}")
    by_prompt: dict[str, list[tuple[Any, Any, list[float]]]] = {}
    total = 0
    for total, row in enumerate(_mappings(rows), start=1):
        prompt, response, rating = _fields(row, total - 1, ("prompt", "response", "rating"))
        group = by_prompt.setdefault(json.dumps(prompt, sort_keys=True), [])
        group.append((prompt, response, _votes(rating, total - 1)))
    pairs: list[dict[str, Any]] = []
    below_gap = identical = 0
    for group in by_prompt.values():
        for (prompt, a, a_votes), (_, b, b_votes) in combinations(group, 2):
            if a == b:
                identical += 1
                continue
            pair = rated_pair(prompt, (a, a_votes), (b, b_votes))
            if pair["margin"] > min_gap:
                pairs.append(pair)
            else:
                below_gap += 1
    single = sum(len(group) == 1 for group in by_prompt.values())
    report = RatingReport(total, len(by_prompt), len(pairs), below_gap, identical, single)
    logger.info("Ratings to pairs: %s", _counts(report))
    columns = ["prompt", "chosen", "rejected", "margin", "chosen_ratings", "rejected_ratings"]
    return _to_dataset(pairs, columns), report


def rated_pair(prompt: Any, a: tuple[Any, Sequence[float]], b: tuple[Any, Sequence[float]]) -> dict[str, Any]:
    """One chosen/rejected row from two rated responses.

    Args:
        prompt: the prompt of both.
        a: a response and its votes.
        b: the other response and its votes.

    Returns:
        `prompt`, `chosen` (the response with the higher mean; `a` if they are equal), `rejected`, `margin` (the gap of
        the means, >= 0), `chosen_ratings`, `rejected_ratings`.
    """
    gap = round(_mean(a[1]) - _mean(b[1]), _GAP_DIGITS)
    (chosen, chosen_votes), (rejected, rejected_votes) = (a, b) if gap >= 0 else (b, a)
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "margin": abs(gap),
        "chosen_ratings": list(chosen_votes),
        "rejected_ratings": list(rejected_votes),
    }


def _mappings(rows: Dataset | Iterable[Row]) -> Iterator[Row]:
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise UserError(f"row {number} is {type(row).__name__}, not a mapping from column names to values")
        yield row


def _fields(row: Row, number: int, names: Sequence[str]) -> list[Any]:
    for name in names:
        if row.get(name) is None:
            raise UserError(f"row {number} has no {name!r}: every row needs {', '.join(names)}")
    return [row[name] for name in names]


def _votes(rating: Any, number: int) -> list[float]:
    votes = [rating] if isinstance(rating, Real) else rating
    if not isinstance(votes, list | tuple) or not votes or any(map(number_problem, votes)):
        raise UserError(f"row {number}: rating must be a finite number or a list of finite numbers, not {rating!r}")
    return [float(vote) for vote in votes]


def _mean(votes: Sequence[float]) -> float:
    return math.fsum(votes) / len(votes)


def _counts(report: ComparisonReport | RatingReport) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(report).items())


def _to_dataset(pairs: Sequence[Row], columns: Sequence[str]) -> Dataset:
    if not pairs:
        return Dataset.from_dict({name: [] for name in columns})
    return to_dataset([{name: pair.get(name) for name in columns} for pair in pairs])
