"""A planted length bias, "longer wins" in a quarter of the pairs, and two ways to take it out.

The second head (ODIN, Chen et al., 2024) learns with the first: the two rewards' sum fits the labels, the first is kept
apart from length, the second close to it, and dropped at the end. The penalty is fitted afterwards on validation: the
slope of the reward on length at equal rating.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.figures import ordered_right
from benchmarks.study.records import Run, scores_of
from benchmarks.study.resampled import HeldOut, cell, number, rows, sums
from benchmarks.study.runs import Scores
from benchmarks.study.settings import Settings
from hf_align.data.embedded.ratings import DOMAINS
from hf_align.statistics import pearson

PLANTED = 0.25


def runs(start: Settings, seeds: Sequence[int]) -> Iterator[Settings]:
    """Without the bias, with it, and with it and the second head."""
    for seed in seeds:
        clean = replace(start, labels="hard", seed=seed)
        yield clean
        yield replace(clean, length="head")
        yield replace(clean, longer_wins=PLANTED)
        yield replace(clean, longer_wins=PLANTED, length="head")


def of_runs(groups: Mapping[Settings, Sequence[Run]], start: Settings, held_out: HeldOut) -> dict[str, list[Scores]]:
    """The table's rows: scores by what was done.

    Args:
        groups: Runs by their settings with seed 0.
        start: What `runs` started from.
        held_out: The held-out texts.
    """
    found: dict[str, list[Scores]] = {}
    for planted, prefix in ((0.0, "clean"), (PLANTED, "planted")):
        plain = replace(start, labels="hard", longer_wins=planted)
        found[prefix] = [scores_of(run) for run in groups.get(plain, ())]
        found[f"{prefix}, penalty"] = [penalised(scores, held_out) for scores in found[prefix]]
        second = groups.get(replace(plain, length="head"), ())
        found[f"{prefix}, second head"] = [scores_of(run) for run in second]
    return found


def slope(rewards: NDArray, lengths: NDArray, means: NDArray) -> float:
    """Slope of the reward on length at equal rating, by least squares."""
    columns = np.stack([lengths - lengths.mean(), means - means.mean()], axis=1)
    return float(np.linalg.lstsq(columns, rewards - rewards.mean(), rcond=None)[0][0])


def penalised(scores: Scores, held_out: HeldOut) -> Scores:
    """Scores less the slope of all validation texts times length."""
    parts = [
        (scores["validation"][domain], held_out.lengths("validation", domain), held_out.means("validation", domain))
        for domain in DOMAINS
    ]
    # Domains differ in length and in reward: within a domain only.
    rewards, lengths, means = (
        np.concatenate([each[place] - each[place].mean() for each in parts]) for place in range(3)
    )
    by = slope(rewards, lengths, means)
    return {
        split: {domain: values - by * held_out.lengths(split, domain) for domain, values in each.items()}
        for split, each in scores.items()
    }


def table(of: dict[str, list[Scores]], held_out: HeldOut) -> str:
    """Correlation of reward and length, and accuracy, with intervals over texts, as markdown."""
    lines: list[list[str]] = [["", *(f"r with length, {domain}" for domain in DOMAINS), "accuracy", "change", "r"]]
    people = [float(pearson(held_out.means("test", domain), held_out.lengths("test", domain))) for domain in DOMAINS]
    lines.append(["people", *(number(value, signed=True) for value in people), "", "", ""])
    reference = None
    for name, every in of.items():
        if not every:
            continue
        cells, accuracies, drawn, r = [name], [], [], []
        for domain in DOMAINS:
            lengths, means = held_out.lengths("test", domain), held_out.means("test", domain)
            draws, counts = held_out.draws[domain], held_out.counts[domain]
            own = [scores["test"][domain] for scores in every]
            with_length = np.mean([pearson(values, lengths) for values in own])
            resampled = np.mean([pearson(values[draws], lengths[draws]) for values in own], axis=0)
            cells.append(f"{number(float(with_length), signed=True)} {cell(resampled, signed=True)}")
            pairs = [ordered_right(values, means) for values in own]
            accuracies.append(np.mean([right.sum() / clear.sum() for right, clear in pairs]))
            drawn.append(np.mean([sums(right, counts) / sums(clear, counts) for right, clear in pairs], axis=0))
            r.append(np.mean([pearson(values, means) for values in own]))
        reference = np.mean(drawn, axis=0) if reference is None else reference
        change = np.mean(drawn, axis=0) - reference
        cells += [number(float(np.mean(accuracies))), cell(change, signed=True), number(float(np.mean(r)))]
        lines.append(cells)
    return rows(lines)
