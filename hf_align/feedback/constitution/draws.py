"""What is drawn: halves, principles and pairs. A draw depends on the seed and what it is for, never on the order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from hf_align.feedback.constitution.principles import Principle
from hf_align.feedback.records import Prompt
from hf_align.feedback.store.queue import draw


def split_halves(prompts: Sequence[Prompt], share: float, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts to revise responses to and those to compare responses to, each in the given order.

    Args:
        prompts: Different prompts.
        share: Expected share of the first half.
        seed: Seed.

    Example:
        >>> from hf_align.feedback import Prompt
        >>> from hf_align.feedback.constitution.draws import split_halves
        >>> first, second = split_halves([Prompt(f"Question {n}?") for n in range(100)], 0.5, seed=0)
        >>> len(first) + len(second), {each.id for each in first} & {each.id for each in second}
        (100, set())
    """
    halves: tuple[list[Prompt], list[Prompt]] = ([], [])
    for prompt in prompts:
        halves[draw(seed, "half", prompt.id) >= share].append(prompt)
    return halves


def draw_principles(
    principles: Sequence[Principle], prompt: Prompt, count: int | None, seed: int, what: str
) -> list[Principle]:
    """Different principles for a prompt, each with a chance by its weight among those that are left.

    The order is that of `log(u) / weight` of a number u for each (Efraimidis and Spirakis, 2006, "Weighted random
    sampling with a reservoir"): another principle in the constitution changes nothing about the order of the others.

    Args:
        principles: Those to draw from.
        prompt: The prompt.
        count: How many, at most. None: all, in the given order.
        seed: Seed.
        what: What they are for; another purpose is another draw.
    """
    suiting = [principle for principle in principles if principle.suits(prompt.domain)]
    if count is None:
        return suiting

    def key(principle: Principle) -> float:
        number = draw(seed, what, prompt.id, principle.id)
        return -math.inf if number == 0 else math.log(number) / principle.weight

    return sorted(suiting, key=key, reverse=True)[:count]


def draw_pairs(ids: Sequence[str], prompt: Prompt, most: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of different responses to a prompt, at most so many, the sides of each drawn.

    Args:
        ids: Ids of the responses.
        prompt: The prompt.
        most: Number of pairs, at most.
        seed: Seed.
    """

    def chance(pair: tuple[str, str]) -> float:
        return draw(seed, "pair", prompt.id, *pair)

    pairs = sorted(combinations(sorted(set(ids)), 2), key=chance)[:most]
    return [(b, a) if draw(seed, "side", prompt.id, a, b) < 0.5 else (a, b) for a, b in pairs]
