"""Pairs of a prompt's responses that are worth a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.records import Prompt, Response, Task
from hf_align.feedback.store.queue import draw

ALL_UP_TO = 3
"""Responses that give all their pairs; with more the pairs are sampled."""
ALL, SOURCES, ONE_SOURCE = "all", "sources", "one_source"
"""Strategies: all pairs of the prompt, a sampled pair of two sources, a sampled pair of one source."""

Pair = tuple[Response, Response]


def make_pairs(prompt: Prompt, responses: Sequence[Response], config: CollectionConfig) -> list[Task]:
    """Tasks that compare a prompt's responses two by two.

    Up to three responses give all their pairs. Of more, `max_pairs` are sampled: pairs of different sources first, in
    such a way that every response is in at least one pair, and then those whose responses are in the fewest. What is
    left open is drawn by the seed and the prompt alone.

    Args:
        prompt: The prompt.
        responses: Different responses to it.
        config: `max_pairs`, `annotators_per_task` and `seed`.

    Returns:
        At most `max_pairs` tasks, the first chosen first; `strategy` says how each was made. None for fewer than two
        responses.

    Example:
        >>> from hf_align.feedback import Prompt, Response
        >>> from hf_align.feedback.collection.config import CollectionConfig
        >>> from hf_align.feedback.collection.pairs import make_pairs
        >>> prompt = Prompt("Name a fruit.")
        >>> responses = [Response(prompt.id, f"Fruit {n}.", "ab"[n % 2]) for n in range(5)]
        >>> [task.strategy for task in make_pairs(prompt, responses, CollectionConfig(max_pairs=3))]
        ['sources', 'sources', 'sources']
    """
    pairs = list(combinations(responses, 2))
    chosen = _sample(prompt, responses, pairs, config)
    everything = len(chosen) == len(pairs)
    return [
        Task.of(
            *pair,
            domain=prompt.domain,
            wanted=config.annotators_per_task,
            strategy=ALL if everything else SOURCES if _differ(pair) else ONE_SOURCE,
        )
        for pair in chosen
    ]


def _sample(
    prompt: Prompt, responses: Sequence[Response], pairs: Sequence[Pair], config: CollectionConfig
) -> list[Pair]:
    limit = len(pairs) if len(responses) <= ALL_UP_TO else config.max_pairs
    left = sorted(pairs, key=lambda pair: draw(config.seed, "pair", prompt.id, *sorted(each.id for each in pair)))
    uses = Counter[str]()
    chosen: list[Pair] = []
    while left and len(chosen) < min(limit, config.max_pairs):
        uncovered = sum(not uses[each.id] for each in responses)
        slots = min(limit, config.max_pairs) - len(chosen)
        best = min(left, key=lambda pair: _rank(pair, uses, uncovered, slots))
        left.remove(best)
        chosen.append(best)
        uses.update(each.id for each in best)
    return chosen


def _rank(pair: Pair, uses: Counter[str], uncovered: int, slots: int) -> tuple[bool, bool, bool, int, int]:
    """Place of a pair among those left, the smallest first.

    A pair takes up to two uncovered responses, so with as many slots as pairs of them each pair has to take two.
    """
    new = sum(not uses[each.id] for each in pair)
    tight = uncovered > 0 and slots <= uncovered // 2
    counts = [uses[each.id] for each in pair]
    return (tight and new < 2, bool(uncovered) and not new, not _differ(pair), max(counts), sum(counts))


def _differ(pair: Pair) -> bool:
    return pair[0].source != pair[1].source
