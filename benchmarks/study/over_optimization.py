"""Over-optimisation by best-of-n: proxies from few noisy pairs, and people's ratings as gold.

Each text's raters are split in two. A proxy learns from half A, from few pairs of which a quarter are flipped. The
candidates are rated texts of a domain themselves, none of them in the training, so the gold score is the mean rating of
half B, and no model is needed; a gold model of all B ratings is the second form.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.study import heads
from benchmarks.study.cache import CachedTexts
from benchmarks.study.ensembles import METHODS, combined
from benchmarks.study.features import Features
from benchmarks.study.grids import BAG, FLIPS, MEMBERS
from benchmarks.study.records import Run, append, packed, read, unpacked
from benchmarks.study.resampled import DRAWS, interval, rows
from benchmarks.study.runs import Inputs
from benchmarks.study.settings import Settings
from hf_align.data.embedded.ratings import DOMAINS
from hf_align.evaluation.best_of_n import best_of_n_kl, expected_best_of_n
from hf_align.evaluation.gao import fit_gao

NS = tuple(2**power for power in range(11))
"""Best of so many, to 1,024."""


def half(text: dict[str, Any], first: bool) -> dict[str, Any]:
    """A text with every second rating."""
    ratings = text["ratings"][0 if first else 1 :: 2]
    return {**text, "ratings": ratings, "mean": float(np.mean(ratings))}


def proxies(start: Settings, pairs: Sequence[int], seeds: Sequence[int]) -> list[Settings]:
    """Ensembles of proxies from so many pairs of movies."""
    return [
        replace(
            start,
            texts=(2 * count, 0, 0),
            responses=2,
            rows=16,
            labels="hard",
            flips=FLIPS,
            bag=BAG,
            seed=seed,
            member=member,
            test=False,
        )
        for count in pairs
        for seed in seeds
        for member in range(MEMBERS)
    ]


def run_all(inputs: Inputs, settings: Sequence[Settings], gold: Settings) -> None:
    """Score all movies by each proxy that isn't in the results, and by the gold model."""
    assert inputs.features is not None, "--features is needed"
    path = inputs.results / "over_optimization.jsonl"
    done = [run["settings"] for run in read(path)]
    features = {layer: Features.load(inputs.features, layer) for layer in {each.layer for each in [*settings, gold]}}
    for each in [*settings, gold]:
        if each.to_json() in done:
            continue
        places = heads.training_texts(inputs.cache, gold) if each == gold else proxy_texts(inputs, each)
        texts = [half(inputs.cache.texts[n], first=each != gold) for n in places]
        model = heads.train(features[each.layer], places, texts, each)
        scores = model.rewards(movies_of(inputs.cache)).numpy()
        append(
            path,
            {"experiment": "gold" if each == gold else "proxy", "settings": each.to_json(), "scores": packed(scores)},
        )


def proxy_texts(inputs: Inputs, settings: Settings) -> list[int]:
    """Places of a proxy's training texts: drawn by the seed, and of them a bag by the member."""
    places = drawn_texts(inputs.cache, settings.seed, settings.texts[0])
    rng = random.Random(f"{settings.seed}/{settings.member}")
    return sorted(rng.sample(places, round(settings.bag * len(places))))


def drawn_texts(cache: CachedTexts, seed: int, count: int) -> list[int]:
    """Places of all texts of which an ensemble's members get bags."""
    train = [n for n, text in enumerate(cache.texts) if text["domain"] == DOMAINS[0] and text["split"] == "train"]
    return random.Random(seed).sample(train, count)


def movies_of(cache: CachedTexts) -> list[int]:
    """Places of all movies, training texts included: the candidates are those that a proxy didn't learn from."""
    return [n for n, text in enumerate(cache.texts) if text["domain"] == DOMAINS[0]]


def curves(runs: Sequence[Run], cache: CachedTexts, *, by_model: bool) -> dict[int, dict[str, NDArray[np.float64]]]:
    """By number of training texts and method the gold score of the best of n, a row for each seed: `[seeds, len(NS)]`.

    Args:
        runs: Proxies and the gold model.
        cache: The texts.
        by_model: Whether the gold score is the model's instead of the mean rating of half B.
    """
    movies = movies_of(cache)
    gold = np.array([half(cache.texts[n], first=False)["mean"] for n in movies])
    if by_model:
        gold = unpacked(next(run["scores"] for run in runs if run["experiment"] == "gold"))
        gold = (gold - gold.mean()) / gold.std()
    ensembles: defaultdict[tuple[int, int], list[Run]] = defaultdict(list)
    for run in runs:
        if run["experiment"] == "proxy":
            ensembles[run["settings"]["texts"][0], run["settings"]["seed"]].append(run)
    found: defaultdict[int, defaultdict[str, list[NDArray]]] = defaultdict(lambda: defaultdict(list))
    for (count, seed), members in sorted(ensembles.items()):
        used = set(drawn_texts(cache, seed, count))
        candidates = [place for place, n in enumerate(movies) if n not in used]
        scores = np.stack([unpacked(run["scores"])[candidates] for run in members])
        scores = (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
        single = [expected_best_of_n(one, gold[candidates], NS) for one in scores]
        found[count]["single"].append(np.mean(single, axis=0))
        for method in METHODS:
            found[count][method].append(expected_best_of_n(combined(scores, method), gold[candidates], NS))
        found[count]["possible"].append(expected_best_of_n(gold[candidates], gold[candidates], NS))
    return {count: {name: np.stack(rows) for name, rows in methods.items()} for count, methods in found.items()}


def table(runs: Sequence[Run], cache: CachedTexts, *, by_model: bool) -> str:
    """Gold score of the best of n, where it is highest, and what is left of the gain at the end, as markdown."""
    shown = [0, 2, 4, 6, 8, 10]
    head = [*(f"n = {NS[place]}" for place in shown), "highest at n", "gain kept at 1,024", "turns at KL (Gao)", "fit"]
    lines: list[list[Any]] = [["pairs", "proxy", *head, "seeds"]]
    kl = [best_of_n_kl(n) for n in NS]
    for count, methods in curves(runs, cache, by_model=by_model).items():
        for name, rows_of in methods.items():
            mean = rows_of.mean(0)
            best = int(mean.argmax())
            draws = np.random.default_rng(0).integers(len(rows_of), size=(DRAWS, len(rows_of)))
            drawn = rows_of[draws].mean(1)  # [B, K]
            kept = (drawn[:, -1] - drawn[:, 0]) / (drawn.max(1) - drawn[:, 0])
            share = (mean[-1] - mean[0]) / (mean[best] - mean[0])
            fit = fit_gao(np.tile(kl, (len(rows_of), 1)), rows_of, kind="bon")
            low, high = fit.turning_interval
            turn = f"{fit.turning_point:.1f} [{low:.1f}, {high:.1f}]"
            cells = [f"{mean[place]:.2f}" for place in shown]
            low, high = interval(kept)
            kept_text = f"{share:.0%} [{low:.0%}, {high:.0%}]"
            lines.append([count // 2, name, *cells, NS[best], kept_text, turn, f"{fit.explained:.2f}", len(rows_of)])
    return rows(lines)
