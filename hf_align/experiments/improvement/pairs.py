"""Pairs of a round: the policy's better samples against its worse ones, or against what the first round rejected."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

PairsOf = Literal["best", "all"]
COUNTS = ("pairs", "anchored", "ties", "no_opinion", "alike", "anchor_not_beaten")


class RoundPrompts(NamedTuple):
    """Rows of a round's prompts: those of the slice, and those that are compared with the first round's rejected."""

    fresh: list[int]
    anchored: list[int]


@dataclass(frozen=True)
class Judged:
    """The different responses to a prompt, and their scores.

    Attributes:
        row: The prompt's row.
        texts: `[K]` different texts.
        scores: `[K]` scores from 0 to 1, None without opinion.
        anchored: Whether the last text is what the first round rejected.
    """

    row: int
    texts: Sequence[str]
    scores: Sequence[float | None]
    anchored: bool = False


class Pair(NamedTuple):
    """A pair of a round.

    Attributes:
        row: The prompt's row.
        chosen: The response with the higher score.
        rejected: The other one.
        margin: Difference of their scores, above 0.
        anchored: Whether the rejected one is the first round's.
    """

    row: int
    chosen: str
    rejected: str
    margin: float
    anchored: bool


def prompts_of_round(
    number: int, count: int, per_round: int, anchors: Sequence[int], share: float, seed: int
) -> RoundPrompts:
    """Choose a round's prompts.

    All prompts stand in one random order. A round takes the next `per_round` of them, from the start again after the
    last; `share` of these places go to prompts drawn from those that have an anchor.

    Args:
        number: The round, from 1.
        count: Number of prompts.
        per_round: Prompts of a round, at most `count`.
        anchors: Rows of prompts with an anchor; none in the first round.
        share: Share of the places for them.
        seed: Seed of the order and the draws.
    """
    order = random.Random(f"prompts/{seed}").sample(range(count), count)
    places = min(len(anchors), round(share * per_round))
    anchored = sorted(random.Random(f"anchors/{seed}/{number}").sample(sorted(anchors), places))
    start = (number - 1) * per_round
    turns = (order[(start + place) % count] for place in range(count))
    fresh = [row for row in turns if row not in set(anchored)]
    return RoundPrompts(fresh[: per_round - places], anchored)


def different(texts: Sequence[str], anchor: str | None = None) -> list[str]:
    """The different texts in their order, the anchor last; without empty ones."""
    kept = [text for text in dict.fromkeys(texts) if text.strip() and text != anchor]
    return kept if anchor is None else [*kept, anchor]


def make_pairs(judged: Sequence[Judged], mode: PairsOf) -> tuple[list[Pair], dict[str, int]]:
    """Pairs of responses with different scores.

    Args:
        judged: Each prompt with its judged responses.
        mode: "best": the best response against the worst, or against the anchor, one pair a prompt. "all": every two
            with different scores, or every response that beats the anchor.

    Returns:
        The pairs, and counts: "pairs", "anchored" among them; dropped: "ties" (two responses with one score that would
        have been a pair), "anchor_not_beaten" (an anchor with a higher score), "no_opinion" (prompts on which the judge
        has an opinion of fewer than two responses, or not of the anchor) and "alike" (prompts with fewer than two
        different responses).

    Example:
        >>> from hf_align.experiments.improvement.pairs import Judged, make_pairs
        >>> pairs, counts = make_pairs([Judged(0, ["a", "b", "c"], [0.5, 1.0, 0.0])], "best")
        >>> pairs[0].chosen, pairs[0].rejected, pairs[0].margin
        ('b', 'c', 1.0)
    """
    counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
    pairs: list[Pair] = []
    for each in judged:
        scored = [(text, score) for text, score in zip(each.texts, each.scores, strict=True) if score is not None]
        if len(each.texts) < 2:
            counts["alike"] += 1
        elif len(scored) < 2 or (each.anchored and each.scores[-1] is None):
            counts["no_opinion"] += 1
        else:
            for better, worse in _candidates(scored, mode, each.anchored):
                margin = better[1] - worse[1]
                if margin > 0:
                    pairs.append(Pair(each.row, better[0], worse[0], margin, each.anchored))
                else:
                    counts["ties" if margin == 0 else "anchor_not_beaten"] += 1
    counts["pairs"], counts["anchored"] = len(pairs), sum(pair.anchored for pair in pairs)
    return pairs, counts


Scored = tuple[str, float]


def _candidates(scored: Sequence[Scored], mode: PairsOf, anchored: bool) -> list[tuple[Scored, Scored]]:
    """Pairs to make, the better one first; only an anchor may be better than what stands before it."""
    new = sorted(scored[:-1] if anchored else scored, key=lambda each: -each[1])  # stable: earlier texts first
    if anchored:
        return [(each, scored[-1]) for each in (new[:1] if mode == "best" else new)]
    if mode == "best":
        return [(new[0], new[-1])]
    return [(new[i], new[j]) for i in range(len(new)) for j in range(i + 1, len(new))]


def anchors_of(pairs: Sequence[Pair]) -> dict[int, str]:
    """By row what the first round rejected: of several pairs of a prompt, the one with the largest margin."""
    widest: dict[int, Pair] = {}
    for pair in pairs:
        if pair.row not in widest or pair.margin > widest[pair.row].margin:
            widest[pair.row] = pair
    return {row: pair.rejected for row, pair in widest.items()}


def training_rows(
    pairs: Sequence[Pair], prompts: Sequence[Any], options: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The pairs as the trainers read them: prompt, chosen, rejected, margin, and what the chat template gets."""
    return [
        {
            "prompt": prompts[pair.row],
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "margin": pair.margin,
            "anchored": pair.anchored,
            **options[pair.row],
        }
        for pair in pairs
    ]
