"""Ensembles from the members' scores: what flipped labels cost, and how well uncertainty finds errors.

Notation: M members, N texts of a domain, B resamples, P pairs of texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.study.records import Run, scores_of, unpacked
from benchmarks.study.resampled import FEWER, HeldOut, cell, interval, number, rows
from hf_align.data.embedded.ratings import DOMAINS
from hf_align.models.aggregation import aggregate
from hf_align.statistics import pearson

CHUNK = 20
"""Weightings of all pairs held at once."""
Members = dict[str, NDArray[np.float64]]
"""Scores of members `[M, N]` by split and domain, as "test/movies"."""
METHODS: tuple[Any, ...] = ("mean", "median", "min", "uncertainty_weighted")


def grouped(runs: Sequence[Run]) -> dict[tuple[Any, ...], list[Run]]:
    """Runs of each ensemble, by what trained it, texts, flips and seed."""
    found: defaultdict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        settings = run["settings"]
        key = (settings["trained"], tuple(settings["texts"]), settings["flips"], settings["seed"])
        found[key].append(run)
    return dict(found)


def stacked(runs: Sequence[Run]) -> Members:
    """Members' scores, each with mean 0 and standard deviation 1 on all validation texts."""
    members: defaultdict[str, list[NDArray]] = defaultdict(list)
    for run in runs:
        scores = {f"{split}/{domain}": v for split, each in scores_of(run).items() for domain, v in each.items()}
        reference = np.concatenate([scores[f"validation/{domain}"] for domain in DOMAINS])
        for name, values in scores.items():
            members[name].append((values - reference.mean()) / reference.std())
    return {name: np.stack(values) for name, values in members.items()}


def noise_table(runs: Sequence[Run], held_out: HeldOut) -> str:
    """What 25% of flipped labels cost single models and ensembles of them, on the test texts, as markdown."""
    groups = grouped([run for run in runs if run["experiment"] == "members"])
    lines: list[list[Any]] = [["", "single, clean", "single, flipped", *METHODS, "weight average", "ensembles"]]
    for trained in dict.fromkeys(key[0] for key in groups):
        texts = next(key[1] for key in groups if key[0] == trained and min(key[1]) > 0)
        flipped = {key[3]: key for key in groups if key[0] == trained and key[1] == texts and key[2] > 0}
        seeds = [seed for seed in flipped if (trained, texts, 0.0, seed) in groups]
        if not seeds:
            continue
        clean = [_resampled(stacked(groups[trained, texts, 0.0, seed]), held_out) for seed in seeds]
        noisy = [_resampled(stacked(groups[flipped[seed]]), held_out) for seed in seeds]
        averages = [_average_of(runs, flipped[seed], held_out) for seed in seeds]
        single, lost = _mean(clean, "single"), _mean(noisy, "single")
        cells: list[Any] = [trained, _with_interval(single), _with_interval(lost)]
        named = [(method, [each[method] for each in noisy]) for method in METHODS]
        named.append(("weight average", [each for each in averages if each is not None]))
        for _, values in named:
            if len(values) < len(seeds):
                cells.append("")
                continue
            own = np.mean(values, axis=0)
            share = (own - lost) / np.where(np.abs(single - lost) > 1e-6, single - lost, np.nan)
            low, high = interval(share[1:][np.isfinite(share[1:])])
            cells.append(f"{number(own[0])}: {share[0]:.0%} [{low:.0%}, {high:.0%}]")
        lines.append([*cells, len(seeds)])
    return rows(lines)


def _resampled(members: Members, held_out: HeldOut) -> dict[str, NDArray]:
    """By method the mean over domains of r: on all texts, then in every resample, `[1 + B]`."""
    result = {}
    for name in ("single", *METHODS):
        scores = {domain: members[f"test/{domain}"] for domain in DOMAINS}
        if name != "single":
            scores = {domain: combined(values, name) for domain, values in scores.items()}
        result[name] = np.mean([_r(values, domain, held_out) for domain, values in scores.items()], axis=0)
    return result


def combined(scores: NDArray, method: Any) -> NDArray[np.float64]:
    """Members' scores `[M, N]` as one, by a rule of `RewardEnsemble`."""
    return aggregate(torch.from_numpy(scores), method).numpy()


def _r(scores: NDArray, domain: str, held_out: HeldOut) -> NDArray[np.float64]:
    """r on all texts and in every resample, `[1 + B]`; a mean over members `[M, N]`."""
    means, draws = held_out.means("test", domain), held_out.draws[domain]
    every = np.atleast_2d(scores)
    return np.mean([[pearson(one, means), *pearson(one[draws], means[draws])] for one in every], axis=0)


def _average_of(runs: Sequence[Run], key: tuple[Any, ...], held_out: HeldOut) -> NDArray[np.float64] | None:
    """The r of an ensemble's weight average; None if it has none."""
    stored = grouped([run for run in runs if run["experiment"] == "average"]).get(key)
    if not stored:
        return None
    scores = scores_of(stored[0])["test"]
    return np.mean([_r(scores[domain], domain, held_out) for domain in DOMAINS], axis=0)


def _mean(every: Sequence[dict[str, NDArray]], name: str) -> NDArray[np.float64]:
    return np.mean([each[name] for each in every], axis=0)


def _with_interval(values: NDArray) -> str:
    return f"{number(values[0])} {cell(values[1:])}"


def measures(members: NDArray, dropped: NDArray | None) -> dict[str, NDArray[np.float64]]:
    """How uncertain the order of each pair of texts is, by name, each `[N, N]`.

    Args:
        members: `[M, N]` scores.
        dropped: `[passes, N]` scores of one member with dropout, or None.
    """
    every = members[:, :, None] - members[:, None]
    difference = every.mean(0)
    p = expit(every).mean(0)
    found = {
        "-|d|": -np.abs(difference),
        "std of d": every.std(0, ddof=1),
        "std / |d|": every.std(0, ddof=1) / np.maximum(np.abs(difference), 1e-9),
        "entropy of the mean P": -np.abs(p - 0.5),
    }
    if dropped is not None:
        found["std of d, MC dropout"] = (dropped[:, :, None] - dropped[:, None]).std(0, ddof=1)
    return found


def uncertainty_table(runs: Sequence[Run], held_out: HeldOut) -> str:
    """AUROC of a wrong order on clear pairs, and the top tenth's error rate beside the rest's, as markdown."""
    lines: list[list[Any]] = [
        ["trained", "pairs", "measure", "AUROC", "less -\\|d\\|", "errors, top tenth", "errors, rest"]
    ]
    groups = grouped([run for run in runs if run["experiment"] == "members" and run["settings"]["flips"] == 0])
    for trained in dict.fromkeys(key[0] for key in groups):
        for kind, inside in (("in domain", True), ("out of domain", False)):
            found = [
                part
                for key, members in groups.items()
                if key[0] == trained and (min(key[1]) > 0) == inside
                for part in _of_ensemble(members, held_out, None if inside else DOMAINS[key[1].index(0)])
            ]
            if not found:
                continue
            reference = np.mean([each["-|d|"][0] for each in found], axis=0)
            for name in dict.fromkeys(name for each in found for name in each):
                of_name = [each[name] for each in found if name in each]
                auroc = np.mean([each[0] for each in of_name], axis=0)
                top, rest = np.mean([each[1] for each in of_name], axis=0)
                baseline = (
                    reference
                    if len(of_name) == len(found)
                    else np.mean([each["-|d|"][0] for each in found if name in each], axis=0)
                )
                change = "" if name == "-|d|" else cell(auroc[1:] - baseline[1:], signed=True)
                shown = f"{number(auroc[0])} {cell(auroc[1:])}"
                lines.append([trained, kind, name.replace("|", "\\|"), shown, change, f"{top:.1%}", f"{rest:.1%}"])
    return rows(lines)


def _of_ensemble(
    runs: Sequence[Run], held_out: HeldOut, only: str | None
) -> list[dict[str, tuple[NDArray[np.float64], tuple[float, float]]]]:
    """For each domain by measure AUROCs `[1 + B]`, and error rates of the most uncertain tenth and the rest."""
    members = stacked(runs)
    result = []
    for domain in DOMAINS if only is None else (only,):
        scores, means = members[f"test/{domain}"], held_out.means("test", domain)
        stored = next((run["dropped"] for run in runs if "dropped" in run), None)
        dropped = None if stored is None else np.stack([unpacked(text) for text in stored[domain]])
        better, worse = np.nonzero(means[:, None] - means[None] > 0.5)
        mean = scores.mean(0)
        wrong = mean[better] < mean[worse]
        weights = held_out.counts[domain][:FEWER]
        of_pairs = np.concatenate([np.ones((1, len(better))), weights[:, better] * weights[:, worse]])
        found = {}
        for name, values in measures(scores, dropped).items():
            uncertainty = values[better, worse]
            top = uncertainty >= np.quantile(uncertainty, 0.9)
            found[name] = auroc(uncertainty, wrong, of_pairs), (wrong[top].mean(), wrong[~top].mean())
        result.append(found)
    return result


def auroc(values: NDArray, positive: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """P(a positive's value is above a negative's), ties half, for several weights of the items: `[W, P]` -> `[W]`."""
    if len(weights) > CHUNK:
        return np.concatenate(
            [auroc(values, positive, weights[at : at + CHUNK]) for at in range(0, len(weights), CHUNK)]
        )
    order = np.argsort(values, kind="stable")
    positive, weights = positive[order], weights[:, order]
    _, place = np.unique(values[order], return_inverse=True)
    negative = weights * ~positive
    below = np.cumsum(negative, axis=1)
    last = np.searchsorted(place, place, side="right") - 1
    first = np.searchsorted(place, place, side="left")
    upto, before = below[:, last], below[:, first] - negative[:, first]
    points = (weights * positive * (upto + before) / 2).sum(1)
    return points / np.maximum((weights * positive).sum(1) * negative.sum(1), 1e-12)
