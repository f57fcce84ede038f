"""Rows that hold one response each, joined to pairs by their prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from hf_align.data.layouts.layout import GAP_DIGITS, UNREADABLE, Made, Row, Tally, problem_of


@dataclass(frozen=True)
class Answer:
    """A response to a prompt.

    Attributes:
        prompt: Text or messages.
        response: Text or messages.
        values: Its ratings, of one person or several; or what else says how good it is.
        others: Other columns of its row.
    """

    prompt: Any
    response: Any
    values: Sequence[float]
    others: Made


def grouped(rows: Iterable[tuple[int, Row]], tally: Tally, read: Callable[[Row], Answer]) -> list[list[Answer]]:
    """Answers by their prompt, in order of first appearance; rows that can't be read are told to the tally."""
    groups: dict[str, list[Answer]] = {}
    for number, row in rows:
        try:
            answer = read(row)
        except UNREADABLE as error:
            tally.refuse(number, problem_of(error))
            continue
        groups.setdefault(json.dumps(answer.prompt, sort_keys=True, default=str), []).append(answer)
    return list(groups.values())


def pooled(groups: Sequence[Sequence[Answer]]) -> list[list[Answer]]:
    """Groups in which equal responses are one, with all their values.

    Other columns that differ between equal responses, such as who rated them, become lists for every response.
    """
    pools: list[list[list[Answer]]] = []
    for group in groups:
        same: dict[str, list[Answer]] = {}
        for answer in group:
            same.setdefault(json.dumps(answer.response, sort_keys=True, default=str), []).append(answer)
        pools.append(list(same.values()))
    equals = [answers for pool in pools for answers in pool if len(answers) > 1]
    names = {name for answers in equals for answer in answers for name in answer.others}
    listed = {name for name in names if any(not _same(_values(answers, name)) for answers in equals)}
    return [[_one(answers, listed) for answers in pool] for pool in pools]


def _one(answers: Sequence[Answer], listed: set[str]) -> Answer:
    first = answers[0]
    others = {name: _values(answers, name) if name in listed else value for name, value in first.others.items()}
    return Answer(first.prompt, first.response, [value for each in answers for value in each.values], others)


def _values(answers: Sequence[Answer], name: str) -> list[Any]:
    return [each.others.get(name) for each in answers]


def of_prompts(groups: Sequence[Sequence[Answer]]) -> set[str]:
    """Other columns that belong to prompts rather than responses: they have one value in each group."""
    names = {name for group in groups for answer in group for name in answer.others}
    return {name for name in names if all(_same([each.others.get(name) for each in group]) for group in groups)}


def _same(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def rated_pairs(groups: Sequence[Sequence[Answer]], tally: Tally, *, votes: bool = False) -> Iterator[Made]:
    """All pairs of a prompt's responses whose mean ratings are further apart than `tally.min_gap`, with the gap.

    Args:
        groups: Answers by prompt.
        tally: Counts what is left out.
        votes: Whether to keep the single ratings, as `chosen_ratings` and `rejected_ratings`.
    """
    shared = of_prompts(groups)
    for group in groups:
        if len(group) == 1:
            tally.drop("prompts with one response")
        for a, b in combinations(group, 2):
            gap = round(fmean(a.values) - fmean(b.values), GAP_DIGITS)
            if abs(gap) <= tally.min_gap and a.response != b.response:  # equal ones are counted as such
                tally.drop(f"pairs with a gap of at most {tally.min_gap:g}")
                continue
            each = both(a, b, shared) | ({"ratings": (list(a.values), list(b.values))} if votes else {})
            common = {name: a.others.get(name) for name in a.others if name in shared}
            yield from tally.compare(
                a.prompt, a.response, b.response, float(gap > 0), common, margin=abs(gap), each=each
            )


def both(a: Answer, b: Answer, shared: set[str]) -> dict[str, tuple[Any, Any]]:
    """Columns of the two answers that aren't shared, by name."""
    names = [name for name in {**a.others, **b.others} if name not in shared]
    return {name: (a.others.get(name), b.others.get(name)) for name in names}
