"""Responses and what people preferred among them: the one form in which a reward model is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_align.collators.rows import Side

MAX_PAIRS = 200_000
"""Most pairs made of scores or ratings; with more, a sample of them is measured."""
_GAP_DIGITS = 9  # so that a gap of 2.8 - 2.3 is .5 and not .49999999999999982


class Response(NamedTuple):
    """One response of a row.

    Attributes:
        row: The row's number, from 0.
        prompt: Its prompt.
        text: The response.
        options: The row's `tools` and `chat_template_kwargs`.
        subset: The row's subset, "" without one.
        style: Number of its style, -1 without one.
        human: People's score, higher is better; NaN without one.
        votes: Single people's ratings, if known.
        source: Who wrote it, "" if unknown.
    """

    row: int
    prompt: Side
    text: Side
    options: Mapping[str, Any]
    subset: str = ""
    style: int = -1
    human: float = float("nan")
    votes: tuple[float, ...] = ()
    source: str = ""


class Preference(NamedTuple):
    """Preference between two responses of a group.

    Attributes:
        first: Its place in the group.
        second: Likewise.
        label: P(first is better).
        votes: Number of votes behind it.
        margin: How much better people find the better one, in their own unit; NaN if unknown.
    """

    first: int
    second: int
    label: float
    votes: int = 1
    margin: float = float("nan")


@dataclass(frozen=True)
class Group:
    """Responses compared with each other; without `preferences`, in the order of people's scores."""

    responses: list[Response]
    preferences: list[Preference] | None = None


@dataclass(frozen=True)
class Comparisons:
    """R responses of a data set (entries), of which S are distinct texts, and P pairs of entries.

    A text is a response to its prompt: the same words after another prompt are another text.

    Attributes:
        layout: "pairs", "lists", "rankings" or "ratings".
        across_prompts: Whether pairs cross prompts.
        prompts: `[U]` distinct prompts.
        texts: `[S]` distinct texts.
        text_of: `[R]` each entry's text.
        prompt_of: `[R]` its prompt.
        row_of: `[R]` its row.
        group_of: `[R]` its group: a row, or with rated rows all responses to a prompt.
        human: `[R]` people's score, NaN without one.
        ratings: `[R]` single people's ratings, empty without any; entries of one text may differ in them.
        human_kind: "ratings", "scores" or "ranks" (0 for the best, -1 for the next); "" without people's scores.
        subsets: Names of the subsets, in alphabetical order.
        subset_of: `[R]`; -1 without subset.
        styles: Names of the styles, if each row has several.
        style_of: `[R]`; -1 without style.
        first, second: `[P]` entries of each pair.
        label: `[P]` P(first is better): a share of votes, or 0, .5 or 1.
        better: `[P]` 1 where people prefer the first, -1 the second, 0 undecided.
        votes: `[P]` number of independent votes behind the label.
        sources: `[R]` who wrote it, "" if unknown.
        margin: `[P]` how much better people find the better one, where rows say so; NaN elsewhere.
        skipped: Counts of what was left out, by reason.
        candidates: Number of pairs before sampling.
    """

    layout: str
    across_prompts: bool
    prompts: list[Side]
    texts: list[Response]
    text_of: NDArray[np.intp]
    prompt_of: NDArray[np.intp]
    row_of: NDArray[np.intp]
    group_of: NDArray[np.intp]
    human: NDArray[np.float64]
    ratings: list[tuple[float, ...]]
    human_kind: str
    subsets: list[str]
    subset_of: NDArray[np.intp]
    styles: tuple[str, ...]
    style_of: NDArray[np.intp]
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    label: NDArray[np.float64]
    better: NDArray[np.intp]
    votes: NDArray[np.intp]
    sources: list[str]
    margin: NDArray[np.float64]
    skipped: dict[str, int] = field(default_factory=dict)
    candidates: int = 0

    @property
    def unit(self) -> str:
        """What the bootstrap draws: texts if pairs cross prompts or prompts are few for their texts, else prompts."""
        few_prompts = len(self.texts) > max(2, len(self.prompts) ** 2)
        return "texts" if self.across_prompts or few_prompts else "prompts"

    @property
    def unit_of(self) -> NDArray[np.intp]:
        """`[R]` each entry's unit of the bootstrap."""
        return self.text_of if self.unit == "texts" else self.prompt_of

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.texts) if self.unit == "texts" else len(self.prompts)

    @property
    def vote_agreement(self) -> NDArray[np.float64]:
        """`[P]` share of single people's votes that agree with what people prefer: 1 where only that is known."""
        return np.where(self.better > 0, self.label, 1 - self.label)

    @property
    def gap(self) -> NDArray[np.float64]:
        """`[P]` how far people's scores of both are apart, or the row's margin; NaN where neither is known."""
        if self.human_kind == "ranks":
            return np.full(len(self.first), np.nan)
        apart = np.abs(np.round(self.human[self.first] - self.human[self.second], _GAP_DIGITS))
        return np.where(np.isnan(apart), self.margin, apart)

    @property
    def pair_units(self) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
        """`[P]` units of each pair: its prompt, or both texts."""
        units = self.unit_of
        return units[self.first], units[self.second] if self.unit == "texts" else None


def build_comparisons(
    groups: Sequence[Group],
    *,
    layout: str,
    across_prompts: bool = False,
    human_kind: str = "",
    styles: tuple[str, ...] = (),
    min_gap: float = 0.0,
    max_pairs: int = MAX_PAIRS,
    seed: int = 0,
) -> Comparisons:
    """Number prompts, texts and subsets, and make the pairs.

    Args:
        groups: The data.
        layout: Name of the data's layout.
        across_prompts: Whether groups hold responses to several prompts.
        human_kind: What people's scores are.
        styles: Names of the styles.
        min_gap: Pairs whose scores differ by no more are undecided.
        max_pairs: See `MAX_PAIRS`.
        seed: Seed of the sample of pairs.
    """
    prompts: dict[str, int] = {}
    texts: dict[str, int] = {}
    entries = [response for group in groups for response in group.responses]
    prompt_of = [prompts.setdefault(_key(entry.prompt), len(prompts)) for entry in entries]
    text_of = [texts.setdefault(_key([e.prompt, e.text, e.options]), len(texts)) for e in entries]
    first_entry = _firsts(text_of)
    subsets = sorted({entry.subset for entry in entries if entry.subset})
    number_of = {name: number for number, name in enumerate(subsets)} | {"": -1}
    pairs, candidates = _make_pairs(groups, min_gap, max_pairs, seed)
    same = np.asarray(text_of)[pairs.first] == np.asarray(text_of)[pairs.second]
    kept = [column[~same] for column in pairs]
    return Comparisons(
        layout=layout,
        across_prompts=across_prompts,
        prompts=[entries[number].prompt for number in _firsts(prompt_of)],
        texts=[entries[number] for number in first_entry],
        text_of=np.asarray(text_of, dtype=np.intp),
        prompt_of=np.asarray(prompt_of, dtype=np.intp),
        row_of=np.asarray([entry.row for entry in entries], dtype=np.intp),
        group_of=np.repeat(np.arange(len(groups)), [len(group.responses) for group in groups]),
        human=np.asarray([entry.human for entry in entries], dtype=float),
        ratings=[entry.votes for entry in entries],
        human_kind=human_kind,
        subsets=subsets,
        subset_of=np.asarray([number_of[entry.subset] for entry in entries], dtype=np.intp),
        styles=styles,
        style_of=np.asarray([entry.style for entry in entries], dtype=np.intp),
        first=kept[0],
        second=kept[1],
        label=kept[2],
        better=kept[3],
        votes=kept[4],
        sources=[entry.source for entry in entries],
        margin=kept[5],
        skipped={"pairs of one text": int(same.sum())} if same.any() else {},
        candidates=candidates,
    )


def _key(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _firsts(numbers: Sequence[int]) -> list[int]:
    """Position of the first of each number, numbers given in order of appearance."""
    return np.unique(np.asarray(numbers, dtype=np.intp), return_index=True)[1].tolist()


class _Pairs(NamedTuple):
    first: NDArray
    second: NDArray
    label: NDArray
    better: NDArray
    votes: NDArray
    margin: NDArray


def _make_pairs(groups: Sequence[Group], min_gap: float, max_pairs: int, seed: int) -> tuple[_Pairs, int]:
    """Pairs of all groups, with entries numbered through, and the number of pairs before sampling."""
    rng = np.random.default_rng(seed)
    sizes = [len(g.responses) * (len(g.responses) - 1) // 2 for g in groups if g.preferences is None]
    share = min(1.0, max_pairs / max(1, sum(sizes)))
    parts, start, candidates = [], 0, 0
    for group in groups:
        if group.preferences is not None:
            parts.append(_given(group, group.preferences, start, min_gap))
            candidates += len(group.preferences)
        else:
            parts.append(_by_score(group.responses, start, min_gap, share, rng))
            candidates += len(group.responses) * (len(group.responses) - 1) // 2
        start += len(group.responses)
    kinds = (np.intp, np.intp, float, np.intp, np.intp, float)
    columns = [
        np.concatenate(column).astype(kind) for column, kind in zip(zip(*parts, strict=True), kinds, strict=True)
    ]
    return _Pairs(*columns), candidates


def _given(group: Group, preferences: Sequence[Preference], start: int, min_gap: float) -> _Pairs:
    first, second, label, votes, margin = (np.asarray(column) for column in zip(*preferences, strict=True))
    better = np.sign(label - 0.5)
    if min_gap > 0:  # else people's votes alone decide
        human = np.asarray([response.human for response in group.responses], dtype=float)
        better[np.abs(np.round(human[first] - human[second], _GAP_DIGITS)) <= min_gap] = 0
    return _Pairs(first + start, second + start, label, better, votes, margin)


def _by_score(
    responses: Sequence[Response], start: int, min_gap: float, share: float, rng: np.random.Generator
) -> _Pairs:
    """All pairs of scored responses, or a sample of them."""
    human = np.asarray([response.human for response in responses], dtype=float)
    scored = np.flatnonzero(~np.isnan(human))
    first, second = np.triu_indices(len(scored), k=1)
    if share < 1:
        drawn = np.sort(rng.permutation(len(first))[: max(1, round(share * len(first)))])
        first, second = first[drawn], second[drawn]
    first, second = scored[first], scored[second]
    gap = np.round(human[first] - human[second], _GAP_DIGITS)
    label, votes = (np.sign(gap) + 1) / 2, np.ones(len(gap), dtype=np.intp)
    counts = np.asarray([len(response.votes) for response in responses])
    if len(scored) and counts[scored].min() > 0:
        votes = np.minimum(counts[first], counts[second])
        label = vote_shares([response.votes for response in responses], first, second)
    better = np.sign(gap) * (np.abs(gap) > min_gap)
    return _Pairs(first + start, second + start, label, better, votes, np.full(len(gap), np.nan))


def vote_shares(votes: Sequence[Sequence[float]], first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """P(a random vote for the first is above one for the second), equal votes half.

    Args:
        votes: `[N]` lists of single ratings.
        first: `[P]` positions in `votes`.
        second: `[P]` likewise.

    Returns:
        `[P]` shares.
    """
    values = np.unique([vote for row in votes for vote in row])
    shares = np.zeros((len(votes), len(values)))
    for row, given in enumerate(votes):
        if len(given):
            np.add.at(shares[row], np.searchsorted(values, given), 1 / len(given))
    below = np.cumsum(shares, axis=1) - shares / 2  # P(a vote is below each value), half of those equal to it
    return np.clip(np.einsum("pv,pv->p", shares[first], below[second]), 0.0, 1.0)
