"""The runs of each part of the study, by the name that the tables show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.study.settings import Settings
from hf_align.data.embedded.ratings import DOMAINS

FLIPS = 0.25
PROXY_PAIRS = (40, 150, 300)
"""Pairs of a proxy, for over-optimisation."""
MEMBERS, BAG = 4, 0.8
DEFAULT = "soft labels, mean, linear"
BEST = "attention head"
"""What does best on validation among `HEADS`."""

ON_FEATURES = Settings(
    trained="features",
    texts=(1400, 800, 800),
    layer=15,
    pooling="mean",
    rows=16,
    epochs=10,
    learning_rate=3e-3,
    test=True,
)
"""The default on features; layer, rate and passes are the best of a few by r on validation."""
ATTENTION: dict[str, Any] = {"head": "attention", "epochs": 4}

ABOVE = Settings(
    labels="soft",
    texts=(560, 288, 288),
    responses=8,
    rows=2,
    epochs=1,
    learning_rate=2e-3,
    test=True,
)
"""The default above 24 cached layers: small, so that an ensemble takes minutes."""
LORA: dict[str, dict[str, Any]] = {
    "soft labels, last token": {},
    "hard labels": {"labels": "hard"},
    "gap above .5, margin weight": {"labels": "margin"},
    "mean": {"pooling": "mean"},
    "attention head": {"head": "attention"},
    "task rating": {"task": "rating"},
    "regression of the mean": {"labels": "rating"},
}

HEADS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "hard labels": {"labels": "hard"},
    "hard labels, smoothing .1": {"labels": "hard", "smoothing": 0.1},
    "hard labels, smoothing .2": {"labels": "hard", "smoothing": 0.2},
    "soft labels, smoothing .1": {"smoothing": 0.1},
    "one drawn vote a text": {"labels": "draw"},
    "gap above .5, no margin": {"labels": "clear"},
    "gap above .5, margin weight": {"labels": "margin"},
    "gap above .5, margin scale": {"labels": "scale"},
    "gap above .5, margin shift": {"labels": "shift"},
    "regression of the mean": {"labels": "rating"},
    "last token": {"pooling": "last"},
    "max": {"pooling": "max"},
    "mlp head": {"head": "mlp", "learning_rate": 1e-3},
    "attention head": ATTENTION,
    "attention, task rating": {**ATTENTION, "task": "rating"},
    "attention, task domain": {**ATTENTION, "task": "domain"},
    "attention, both tasks": {**ATTENTION, "task": "both"},
    "attention, contrastive .1": {**ATTENTION, "contrastive": 0.1},
    "curriculum": {"curriculum": True},
    "mixup of features": {"mixup": 0.5},
    "pairs, each text once, soft": {"responses": 2, "rows": 64},
    "pairs, each text once, hard": {"responses": 2, "rows": 64, "labels": "hard"},
    "chains of 8, hard": {"labels": "hard", "observed": "chain"},
    "chains, transitivity": {"labels": "hard", "observed": "closure"},
    "chains, interpolation": {"labels": "hard", "observed": "interpolation"},
}


def of_grid(start: Settings, grid: dict[str, dict[str, Any]], seeds: Sequence[int]) -> Iterator[Settings]:
    """Every entry with every seed."""
    for changes in grid.values():
        for seed in seeds:
            yield replace(start, **changes, seed=seed)


def hard_cases(start: Settings, names: Sequence[str], seeds: Sequence[int]) -> Iterator[Settings]:
    """Entries of `HEADS` with flipped labels, and trained on two domains to be tried on the third."""
    for name in names:
        for seed in seeds:
            each = replace(start, **HEADS[name], seed=seed)
            yield replace(each, flips=FLIPS)
            yield from out_of_domain(each)


def out_of_domain(start: Settings) -> Iterator[Settings]:
    """A run without each domain."""
    for place in range(len(DOMAINS)):
        counts = list(start.texts)
        counts[place] = 0
        yield replace(start, texts=(counts[0], counts[1], counts[2]))


def members(start: Settings, seeds: Sequence[int]) -> Iterator[Settings]:
    """Ensembles: members on bags of the same labels, clean and flipped."""
    for seed in seeds:
        for flips in (0.0, FLIPS):
            for member in range(MEMBERS):
                yield replace(start, flips=flips, seed=seed, member=member, bag=BAG)


def members_outside(start: Settings, seeds: Sequence[int]) -> Iterator[Settings]:
    """Ensembles trained without each domain."""
    for seed in seeds:
        for without in out_of_domain(start):
            for member in range(MEMBERS):
                yield replace(without, seed=seed, member=member, bag=BAG)
