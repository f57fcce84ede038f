"""Differences between algorithms, prompt by prompt and seed by seed, and what flipped labels cost each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from hf_align.evaluation.grid.crossed import Table, crossed_mean
from hf_align.evaluation.grid.runs import Figures, Run
from hf_align.evaluation.grid.summary import is_trained, main_table, table_of
from hf_align.statistics import holm

LEVEL = 0.05
"""Largest adjusted p-value of a difference that is called real."""
FEWEST_SEEDS = 2
"""Fewest common seeds of one: a single training of each says nothing about another."""
BySeed = Mapping[int, Run]
ByLabel = Mapping[str, BySeed]


def compare_all(runs: ByLabel, base: Mapping[int, Figures], figure: str) -> list[dict[str, Any]]:
    """The difference between every two algorithms of a data set.

    Gains on the same prompt with the same seed are subtracted, over the seeds that both have. Of best-of-n, which
    trains nothing, the mean of all its seeds' gains on the prompt is.

    Args:
        runs: Runs by label and seed.
        base: The base's figures by seed.
        figure: "judge", or "win" of a judge that only compares.

    Returns:
        By pair "a", "b", "seeds", "enough" (whether at least 2 trainings are compared), "difference" (a minus b, an
        estimate), "kl" (the difference of KLs, or None), "adjusted" (its p-value by Holm's method over all pairs of the
        data set with enough seeds, else NaN) and "real": whether that is at most .05.
    """
    pairs = []
    for a, b in combinations(runs, 2):
        difference = _difference(runs[a], runs[b], lambda each, seeds: main_table(each, seeds, figure, base))
        if difference is not None:
            kl = _difference(runs[a], runs[b], lambda each, seeds: table_of(each, "kl", seeds))
            pairs.append({"a": a, "b": b, **difference, "kl": kl and kl["difference"]})
    return _judged(pairs, "difference")


def _difference(a: BySeed, b: BySeed, table: Callable[[BySeed, Sequence[int]], Table | None]) -> dict[str, Any] | None:
    """Seeds, whether they are trainings of both or of one, and the mean of a minus b; None where one isn't measured."""
    trained = {"a": is_trained(a), "b": is_trained(b)}
    common = sorted(set(a) & set(b)) if all(trained.values()) else None
    tables = []
    for each in (a, b):
        values = table(each, sorted(each) if common is None else common)
        if values is None:
            return None
        tables.append(values if is_trained(each) else values.mean(axis=0, keepdims=True))
    seeds = common if common is not None else sorted(a if trained["a"] else b if trained["b"] else {*a, *b})
    enough = len(seeds) >= FEWEST_SEEDS or not any(trained.values())
    return {"seeds": seeds, "enough": enough, "difference": crossed_mean(tables[0] - tables[1]).to_json()}


def _judged(entries: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Entries with adjusted p-values of their estimate `name`, and whether it is real."""
    adjusted = holm([each[name]["p"] if each["enough"] else np.nan for each in entries])
    return [{**each, "adjusted": float(p), "real": bool(p <= LEVEL)} for each, p in zip(entries, adjusted, strict=True)]


SAME = ("pairs", "prompts", "limit", "budget")
"""What a flipped data set has in common with its clean twin."""


def clean_twins(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The data set without flips that each flipped one was made from, by the flipped one's name: `SAME` is the same."""

    def source(name: str) -> str:
        return str([datasets[name].get(key) for key in SAME])

    clean = {source(name): name for name in reversed(list(datasets)) if not datasets[name].get("flip")}
    return {name: clean[source(name)] for name in datasets if datasets[name].get("flip") and source(name) in clean}


def lost_to_flips(clean: ByLabel, flipped: ByLabel, base: Mapping[int, Figures], figure: str) -> list[dict[str, Any]]:
    """What each algorithm loses under flipped labels: its figure on clean data minus that on flipped data.

    Both policies answered the same prompts, so gains with the same seed are subtracted.

    Returns:
        By algorithm of both "label", "seeds", "lost" (an estimate, more is worse) and "enough", "adjusted" and "real"
        as in `compare_all`, over these algorithms.
    """
    entries = []
    for label in [label for label in clean if label in flipped]:
        lost = _difference(clean[label], flipped[label], lambda each, seeds: main_table(each, seeds, figure, base))
        if lost is not None:
            entries.append(
                {"label": label, "seeds": lost["seeds"], "enough": lost["enough"], "lost": lost["difference"]}
            )
    return _judged(entries, "lost")
