"""Tables of the runs above cached states: what was tried, and soft labels against hard ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.study.cache import CachedTexts
from benchmarks.study.figures import RESAMPLES, entropy, figures, interval, log_loss, off_diagonal, vote_shares
from benchmarks.study.records import Run, unpacked
from hf_align.data.embedded.ratings import DOMAINS
from hf_align.statistics import pearson


def tuning_table(runs: Sequence[Run], cache: CachedTexts) -> str:
    """r and NLL on validation of every tuning run, with its settings, as markdown."""
    lines = [
        "| labels | texts | epochs | K x rows | rate | trained | pooling | movies | products | tweets | NLL | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        settings = run["settings"]
        if run["experiment"] != "tuning":
            continue
        nll = []
        for domain in DOMAINS:
            shares = vote_shares([row["ratings"] for row in cache.rows("validation", domain)])
            nll.append(off_diagonal(log_loss(unpacked(run["scores"]["validation"][domain]), shares)))
        cells = [
            settings["labels"],
            str(sum(settings["texts"])),
            str(settings["epochs"]),
            f"{settings['responses']} x {settings['rows']}",
            f"{settings['learning_rate']:g}",
            trained(settings),
            settings["pooling"],
            *(f"{run['summary']['validation'][domain]['r']:.3f}" for domain in DOMAINS),
            " ".join(f"{each:.2f}" for each in nll),
            f"{run['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def trained(settings: dict[str, Any]) -> str:
    """What a run trained, in words."""
    frozen = settings["frozen_layers"] + settings.get("freeze", 0)
    what = {"lora": f"LoRA r {settings['rank']}", "all": "all weights", "head": "head"}[settings["trained"]]
    return what if settings["trained"] == "head" or not frozen else f"{what}, above layer {frozen}"


def label_table(runs: Sequence[Run], cache: CachedTexts) -> str:
    """Figures on test by label, means over seeds, and differences from hard labels with intervals, as markdown."""
    by_label: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run["experiment"] == "labels":
            by_label[run["settings"]["labels"]].append(run)
    lines = [
        "| held-out texts | labels | r (seeds) | NLL | floor | NLL, scaled | entropies' r |",
        "|---|---|---|---|---|---|---|",
    ]
    for domain in DOMAINS:
        ratings = [row["ratings"] for row in cache.rows("test", domain)]
        drawn = resampled_figures(by_label, domain, ratings)
        for label, of_label in by_label.items():
            parts = []
            for run in of_label:
                temperature = run["summary"]["validation"][domain]["temperature"]
                parts.append(figures(unpacked(run["scores"]["test"][domain]), ratings, temperature=temperature))
            cells = [f"{domain} ({len(ratings)})", label]
            for name in ("r", "nll", "floor", "nll_scaled", "entropy_r"):
                values = [part[name] for part in parts]
                seeds = f" ({' '.join(f'{value:.3f}' for value in values)})" if name == "r" else ""
                change = ""
                if label != "hard" and "hard" in by_label and name in drawn[label]:
                    low, high = interval(drawn[label][name] - drawn["hard"][name])
                    change = f" [{low:+.3f}, {high:+.3f}]"
                cells.append(f"{np.mean(values):.3f}{seeds}{change}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def resampled_figures(
    by_label: dict[str, list[Run]], domain: str, ratings: Sequence[Sequence[int]]
) -> dict[str, dict[str, NDArray]]:
    """`[B]` r, NLL and entropies' r of every label, means over its seeds, on the same resampled texts."""
    mean, shares = np.array([np.mean(votes) for votes in ratings]), vote_shares(ratings)
    floor = entropy(shares)
    draws = np.random.default_rng(0).integers(len(mean), size=(RESAMPLES, len(mean)))
    counts = [np.bincount(draw, minlength=len(mean)) for draw in draws]
    result: dict[str, dict[str, NDArray]] = {}
    for label, runs in by_label.items():
        every: defaultdict[str, list[NDArray]] = defaultdict(list)
        for run in runs:
            scores = unpacked(run["scores"]["test"][domain])
            loss, own = log_loss(scores, shares), entropy(expit(scores[:, None] - scores[None]))
            every["r"].append(pearson(scores[draws], mean[draws]))
            every["nll"].append(np.array([off_diagonal(loss, count) for count in counts]))
            every["entropy_r"].append(np.array([pair_correlation(own, floor, count) for count in counts]))
        result[label] = {name: np.mean(values, axis=0) for name, values in every.items()}
    return result


def pair_correlation(a: NDArray, b: NDArray, counts: NDArray) -> float:
    """Pearson correlation of two `[N, N]` over pairs of different texts, each text counting `counts` times."""
    mean_a, mean_b = off_diagonal(a, counts), off_diagonal(b, counts)
    a, b = a - mean_a, b - mean_b
    return off_diagonal(a * b, counts) / np.sqrt(off_diagonal(a * a, counts) * off_diagonal(b * b, counts))
