"""r of a reward model against the number of answers, by how the pairs to ask about are chosen.

    python -m benchmarks.feedback.answers_needed --cache CACHE --features FEATURES --work WORK

CACHE and FEATURES are made by `python -m benchmarks.study cache` (with 0 layers) and `features` (layers 15, 18, 21).
Runs are stored in WORK one by one, so the command resumes.

Somebody who answers draws one of the real votes of each of the two sentences; equal votes are a tie. The votes carry no
rater's identity, so these are simulated people, each of whom differs from the mean as one rater does, but without a
rater's own habits. Pairs are of training sentences of one domain. The reward model is a linear Bradley-Terry head on
the frozen base's pooled states, fitted to all answers so far; r is its correlation with the mean rating of held-out
sentences, averaged over the three domains.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.machine import describe_machine
from benchmarks.study.cache import CachedTexts
from benchmarks.study.features import Features
from hf_align.data.embedded.ratings import DOMAINS
from hf_align.feedback.collection.choose import disagreement
from hf_align.feedback.collection.head import EvenFeatures, LinearHead
from hf_align.feedback.collection.information import choose_informative
from hf_align.files import write_json
from hf_align.statistics import pearson
from hf_align.version import versions

STATES = ((15, "mean"), (15, "last"), (18, "last"), (18, "mean"), (21, "last"))
"""Layers and poolings whose states are put side by side."""
SIZES = (60, 99, 150, 225, 339, 501, 699, 999, 1401, 1998, 2499, 3000)
"""Answers after each round; the first are at random. Divisible by 3."""
MORE = (4200, 6000, 9000, 12000)
"""Further ones at random only."""
CANDIDATES = 20_000
MEMBERS, BAG = 5, 0.8
AVERAGE_ROOM = 2
"""Times the average number of pairs a text is in, beyond one, that a text may be in."""
FULL_PAIRS = 12_000
SHARES = (0.9, 0.95, 0.98)
"""Shares of full r."""
RESAMPLES = 1000
RESULTS = Path(__file__).parent.parent / "results" / "feedback" / "answers_needed.json"


@dataclass(frozen=True)
class Method:
    """How pairs are chosen.

    Attributes:
        name: In the results.
        rule: "random", "disagreement", "predictions" or "parameters" (aims of `choose_informative`).
        answers: Answers a pair gets.
        limited: Whether a text may be in only about twice as many pairs as the average training text.
        sharper: Factor of the head's log odds, which the penalty makes too small, before the choice.
    """

    name: str
    rule: str
    answers: int = 1
    limited: bool = False
    sharper: float = 1.0


METHODS = (
    Method("random, 3 answers a pair", "random", 3),
    Method("random", "random"),
    Method("disagreement", "disagreement"),
    Method("information about parameters", "parameters"),
    Method("information", "predictions"),
    Method("information, each text seldom", "predictions", limited=True),
    Method("information, each text seldom, log odds x 1.5", "predictions", limited=True, sharper=1.5),
    Method("information, 3 answers a pair", "predictions", 3),
)


@dataclass(frozen=True)
class Texts:
    """Sentences with features.

    Attributes:
        features: `[N, d]`.
        votes: Every vote, by sentence.
        mean: `[N]` mean votes.
        domains: `[N]`.
        splits: `[N]`.
    """

    features: NDArray
    votes: list[NDArray]
    mean: NDArray
    domains: NDArray
    splits: NDArray

    @classmethod
    def load(cls, cache: Path, features: Path, stored: Path) -> Texts:
        """Read texts and states; the features are fitted to the training texts and stored."""
        rows = CachedTexts.load(cache).texts
        domains, splits = (np.array([row[name] for row in rows]) for name in ("domain", "split"))
        if not stored.exists():
            parts = {layer: Features.load(features, layer).pooled for layer, _ in STATES}
            states = np.concatenate([parts[layer][pooling].numpy() for layer, pooling in STATES], axis=1)
            train = splits == "train"
            for domain in DOMAINS:  # pairs are of one domain: its mean cancels
                states[domains == domain] -= states[train & (domains == domain)].mean(0)
            np.save(stored, EvenFeatures.fit(states[train])(states))
        votes = [np.array(row["ratings"]) for row in rows]
        return cls(np.load(stored), votes, np.array([each.mean() for each in votes]), domains, splits)

    def places(self, split: str, domain: str) -> NDArray:
        """Places of a domain's texts in a split."""
        return np.flatnonzero((self.splits == split) & (self.domains == domain))

    def draw(self, rng: Generator, count: int) -> NDArray:
        """`[count, 2]` random pairs of training texts of one domain, domains by their share of texts."""
        sizes = np.array([len(self.places("train", domain)) for domain in DOMAINS])
        pairs = []
        for domain, size, wanted in zip(DOMAINS, sizes, rng.multinomial(count, sizes / sizes.sum()), strict=True):
            first = rng.integers(size, size=wanted)
            second = (first + rng.integers(1, size, size=wanted)) % size
            pairs.append(self.places("train", domain)[np.stack([first, second], 1)])
        return rng.permutation(np.concatenate(pairs))

    def answer(self, rng: Generator, pairs: NDArray, answers: int) -> NDArray:
        """`[answers, P]` preferences of simulated people, different ones for a pair's answers."""
        drawn = np.array([[rng.choice(self.votes[n], answers, replace=False) for n in pair] for pair in pairs])
        return (np.sign(drawn[:, 0] - drawn[:, 1]).T + 1) / 2

    def shares(self, pairs: NDArray) -> NDArray:
        """`[P]` P(first is better) over all pairs of votes."""
        return np.array([((np.sign(np.subtract.outer(self.votes[a], self.votes[b])) + 1) / 2).mean() for a, b in pairs])

    def differences(self, pairs: NDArray) -> NDArray:
        """`[P, d]` features of the first less those of the second."""
        return self.features[pairs[:, 0]] - self.features[pairs[:, 1]]


@dataclass(frozen=True)
class Run:
    """One method with one seed: what it draws, and the settings."""

    texts: Texts
    rng: Generator
    penalty: float
    candidates: int


def choose(
    method: Method, head: LinearHead, x: NDArray, y: NDArray, drawn: NDArray, count: int, run: Run, room: NDArray
) -> NDArray:
    """Places of `count` of the pairs `drawn`, given the answers `y` to `x`; fewer if texts have no more room."""
    candidates = run.texts.differences(drawn)
    if method.rule == "disagreement":
        bags = [run.rng.choice(len(x), round(BAG * len(x))) for _ in range(MEMBERS)]
        members = [LinearHead.fit(x[bag], y[bag], penalty=run.penalty, start=head.weights) for bag in bags]
        log_odds = np.stack([candidates @ member.weights for member in members])
        return np.argsort(-disagreement(log_odds), kind="stable")[:count]
    aim: Any = method.rule
    limits: dict[str, Any] = {"pairs": drawn, "room": room} if method.limited else {}
    beliefs = head.beliefs(method.sharper * candidates)
    return choose_informative(beliefs, count, answers=method.answers, aim=aim, **limits)[0]


def run_one(
    texts: Texts, method: Method, seed: int, penalty: float, candidates: int, sizes: Sequence[int] | None = None
) -> dict[str, NDArray]:
    """`sizes`, the numbers of answers, and `scores` `[sizes, N]` of all texts after each."""
    run = Run(texts, np.random.default_rng([seed, 0]), penalty, candidates)
    people = np.random.default_rng([seed, 1])
    x, y, head = np.zeros((0, texts.features.shape[1])), np.zeros(0), None
    sizes = [*SIZES, *(MORE if method.rule == "random" else ())] if sizes is None else sizes
    found, used = [], np.zeros(len(texts.votes), dtype=int)
    for before, size in zip([0, *sizes], sizes, strict=False):
        count = (size - before) // method.answers
        if head is None or method.rule == "random":
            pairs = texts.draw(run.rng, count)
        else:
            drawn = texts.draw(run.rng, candidates)
            room = np.ceil(2 * AVERAGE_ROOM * size / method.answers / (texts.splits == "train").sum()) + 1 - used
            pairs = drawn[choose(method, head, x, y, drawn, count, run, room)]
            if len(pairs) < count:
                pairs = np.concatenate([pairs, texts.draw(run.rng, count - len(pairs))])
        np.add.at(used, pairs.ravel(), 1)
        x = np.concatenate([x, *[texts.differences(pairs)] * method.answers])
        y = np.concatenate([y, *texts.answer(people, pairs, method.answers)])
        head = LinearHead.fit(x, y, penalty=penalty, start=None if head is None else head.weights)
        found.append(texts.features @ head.weights)
    return {"sizes": np.array(sizes), "scores": np.array(found)}


def run_full(texts: Texts, seed: int, penalty: float) -> dict[str, NDArray]:
    """`scores` `[N]` of the head fitted to the shares of all votes."""
    pairs = texts.draw(np.random.default_rng([seed, 2]), FULL_PAIRS)
    head = LinearHead.fit(texts.differences(pairs), texts.shares(pairs), penalty=penalty)
    return {"scores": texts.features @ head.weights}


def stored(path: Path, make: Callable[[], dict[str, NDArray]]) -> dict[str, NDArray]:
    """Arrays of a file, which is made if it isn't there."""
    if not path.exists():
        arrays = make()
        part = path.with_suffix(".part.npz")
        cast(Any, np.savez)(part, **arrays)
        part.replace(path)
        print(path.stem, flush=True)
    with np.load(path) as file:
        return dict(file)


def needed(sizes: Sequence[int], r: NDArray, target: float) -> float:
    """Answers at which a curve, made to rise, first reaches a target; between sizes along the logarithm; inf: never."""
    rising, logs = np.maximum.accumulate(r), np.log(sizes)
    place = int(np.searchsorted(rising, target))
    if place == len(rising):
        return float("inf")
    if place == 0:
        return float(sizes[0])
    share = (target - rising[place - 1]) / (rising[place] - rising[place - 1])
    return float(np.exp(logs[place - 1] + share * (logs[place] - logs[place - 1])))


def mean_r(texts: Texts, values: NDArray, split: str, draws: dict[str, NDArray] | None = None) -> NDArray:
    """`[...]` r with the mean rating, over the domains, of scores `[..., N]`; of resampled texts where drawn."""
    by_domain = []
    for domain in DOMAINS:
        places = texts.places(split, domain)
        places = places if draws is None else places[draws[domain]]
        by_domain.append(pearson(values[..., places], texts.mean[places], -1))
    return np.mean(by_domain, axis=0)


def interval(values: Sequence[float] | NDArray) -> list[float | None]:
    """The middle 95% of resampled values, some of which may be infinite; None for an infinite end."""
    ends = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    return [round(float(end), 4) if np.isfinite(end) else None for end in ends]


def figures(
    texts: Texts, runs: dict[str, tuple[list[int], NDArray]], full: NDArray, split: str, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Curves with intervals, and answers needed for shares of full r beside those of random choice.

    Args:
        texts: The sentences.
        runs: By method: numbers of answers, and scores `[seeds, sizes, N]`.
        full: `[seeds, N]` scores with all votes.
        split: Whose texts are scored.
        resamples: Of the texts, for the intervals.
    """
    rng = np.random.default_rng(0)

    def measure(draws: dict[str, NDArray] | None) -> dict[str, Any]:
        full_r = mean_r(texts, full, split, draws).mean()
        curves = {name: mean_r(texts, values, split, draws) for name, (_, values) in runs.items()}  # [seeds, sizes]
        counts = {
            share: {name: needed(runs[name][0], curve.mean(0), share * full_r) for name, curve in curves.items()}
            for share in SHARES
        }
        return {"full_r": full_r, "curves": curves, "needed": counts}

    whole, resampled = measure(None), []
    for _ in range(resamples):
        draws = {}
        for domain in DOMAINS:
            size = len(texts.places(split, domain))
            draws[domain] = rng.integers(size, size=size)
        resampled.append(measure(draws))
    methods = {}
    for name, (sizes, _) in runs.items():
        curve = whole["curves"][name]
        methods[name] = {
            "answers": list(sizes),
            "r": curve.mean(0).round(4).tolist(),
            "r_by_seed": curve.round(4).tolist(),
            "r_interval": [
                interval([each["curves"][name].mean(0)[n] for each in resampled]) for n in range(len(sizes))
            ],
            "needed": {
                f"{share:g}": compared(whole["needed"][share], [each["needed"][share] for each in resampled], name)
                for share in SHARES
            },
        }
    return {"full_r": round(float(whole["full_r"]), 4), "methods": methods}


def compared(whole: dict[str, float], resampled: list[dict[str, float]], name: str) -> dict[str, Any]:
    """A method's answers, and their share of those of random choice, with the interval of resampled texts."""
    ratios = [each[name] / each["random"] for each in resampled if np.isfinite(each["random"])]
    reached = np.isfinite(whole[name])
    return {
        "answers": round(whole[name]) if reached else None,
        "of_random": round(whole[name] / whole["random"], 3) if reached else None,
        "interval": interval(ratios),
    }


def main(arguments: argparse.Namespace) -> None:
    """Do the runs that aren't there yet and write the figures."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    texts = Texts.load(arguments.cache, arguments.features, arguments.work / "features.npy")
    seeds, penalty, candidates = arguments.seeds, arguments.penalty, arguments.candidates
    runs: dict[str, tuple[list[int], NDArray]] = {}
    for method in METHODS:
        if method.name not in (arguments.methods or [each.name for each in METHODS]):
            continue
        kind = f"{method.rule}{'-limited' * method.limited}-{method.answers}"
        kind += "" if method.sharper == 1 else f"-x{method.sharper:g}"
        parts = [
            stored(
                arguments.work / f"{kind}-{penalty:g}-{candidates}-{seed}.npz",
                partial(run_one, texts, method, seed, penalty, candidates),
            )
            for seed in seeds
        ]
        runs[method.name] = parts[0]["sizes"].tolist(), np.stack([part["scores"] for part in parts])
    full = [
        stored(arguments.work / f"full-{penalty:g}-{seed}.npz", partial(run_full, texts, seed, penalty))["scores"]
        for seed in seeds
    ]
    result = {
        "command": "python -m benchmarks.feedback.answers_needed " + " ".join(arguments.shown),
        "machine": describe_machine(),
        "versions": versions(("numpy", "scipy")),
        "settings": {"split": arguments.split, "seeds": seeds, "penalty": penalty, "candidates": candidates},
        **figures(texts, runs, np.array(full), arguments.split),
    }
    write_json(arguments.out, result)
    for name, method in result["methods"].items():
        print(name, *(f"{share} of full r: {values}" for share, values in method["needed"].items()), sep="\n  ")
        print("   ", *(f"{n}:{r:.4f}" for n, r in zip(method["answers"], method["r"], strict=True)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cache", "features", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--penalty", type=float, default=1.0)
    parser.add_argument("--candidates", type=int, default=CANDIDATES)
    parser.add_argument("--methods", nargs="+")
    parsed = parser.parse_args()
    before = ["", *sys.argv[1:]]  # a path becomes its option's name
    parsed.shown = [b[2:].upper() if "/" in each else each for b, each in zip(before, sys.argv[1:], strict=False)]
    main(parsed)
