"""Ensembles from their members' scores: what flipped labels cost, and how well uncertainty finds errors.

Notation: M members, N texts of a domain, B resamples, P pairs of texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.study.grids import BAG, FLIPS, MEMBERS, out_of_domain
from benchmarks.study.records import Run, scores_of, unpacked
from benchmarks.study.resampled import FEWER, HeldOut, cell, interval, number, rows
from benchmarks.study.settings import Settings
from hf_align.data.embedded.ratings import DOMAINS
from hf_align.models.aggregation import aggregate
from hf_align.statistics import pearson

Groups = Mapping[Settings, Sequence[Run]]
"""Runs of every seed by their settings with seed 0."""
Members = dict[str, NDArray[np.float64]]
"""Scores of members `[M, N]` by split and domain, as "test/movies"."""
METHODS: tuple[Any, ...] = ("mean", "median", "min", "uncertainty_weighted")
AVERAGE = -1
"""Number of the weight average among the members."""
CHUNK = 20
"""Weightings of all pairs held at once."""


def ensembles_of(groups: Groups, start: Settings) -> dict[int, list[Run]]:
    """The members' runs of each whole ensemble, by its seed."""
    found: defaultdict[int, list[Run]] = defaultdict(list)
    for member in range(MEMBERS):
        for run in groups.get(replace(start, bag=BAG, member=member), ()):
            found[run["settings"]["seed"]].append(run)
    return {seed: runs for seed, runs in found.items() if len(runs) == MEMBERS}


def stacked(runs: Sequence[Run]) -> Members:
    """Members' scores, each with mean 0 and standard deviation 1 on all validation texts."""
    members: defaultdict[str, list[NDArray]] = defaultdict(list)
    for run in runs:
        scores = {f"{split}/{domain}": v for split, each in scores_of(run).items() for domain, v in each.items()}
        reference = np.concatenate([scores[f"validation/{domain}"] for domain in DOMAINS])
        for name, values in scores.items():
            members[name].append((values - reference.mean()) / reference.std())
    return {name: np.stack(values) for name, values in members.items()}


def combined(scores: NDArray, method: Any) -> NDArray[np.float64]:
    """Members' scores `[M, N]` as one, by a rule of `RewardEnsemble`."""
    return aggregate(torch.from_numpy(scores), method).numpy()


def noise_table(groups: Groups, start: Settings, held_out: HeldOut) -> str:
    """What flipped labels cost a single model, and what ensembles of 4 on bags give back of it, as markdown.

    The single model learns from all texts, or from a bag where there are no such runs.
    """
    noisy = replace(start, flips=FLIPS)
    ensembles, bag = ensembles_of(groups, noisy), " on a bag"
    if groups.get(start) and groups.get(noisy):
        runs, bag = (groups[start], groups[noisy]), ""
    else:
        runs = tuple([run for of in ensembles_of(groups, each).values() for run in of] for each in (start, noisy))
    if not (ensembles and all(runs)):
        return "(not all runs yet)"
    clean, single = (np.mean([_r(scores_of(run)["test"], held_out) for run in of], axis=0) for of in runs)
    lines: list[list[Any]] = [["", "r", "lost", "of the single's loss regained", "runs"]]
    for name, values, of in (("clean", clean, runs[0]), ("flipped", single, runs[1])):
        lost = number((clean - values)[0]) if name == "flipped" else ""
        lines.append([f"single{bag}, {name}", f"{number(values[0])} {cell(values[1:])}", lost, "", len(of)])
    for name, every in _by_method(groups, noisy, ensembles, held_out).items():
        values = np.mean(every, axis=0)
        share = (values - single) / (clean - single)
        low, high = interval(share[1:])
        regained = f"{share[0]:.0%} [{low:.0%}, {high:.0%}]"
        shown = f"{number(values[0])} {cell(values[1:])}"
        lines.append([f"{name}, flipped", shown, number((clean - values)[0]), regained, len(every)])
    return rows(lines)


def _by_method(
    groups: Groups, noisy: Settings, ensembles: Mapping[int, Sequence[Run]], held_out: HeldOut
) -> dict[str, list[NDArray[np.float64]]]:
    """r of every ensemble by method, and of its weight average where there is one."""
    found: defaultdict[str, list[NDArray]] = defaultdict(list)
    for runs in ensembles.values():
        standardised = stacked(runs)
        members = {domain: standardised[f"test/{domain}"] for domain in DOMAINS}
        each = [{domain: values[m] for domain, values in members.items()} for m in range(MEMBERS)]
        found["one member (a bag)"].append(np.mean([_r(one, held_out) for one in each], axis=0))
        for method in METHODS:
            scores = {domain: combined(values, method) for domain, values in members.items()}
            found[method].append(_r(scores, held_out))
    for run in groups.get(replace(noisy, bag=BAG, member=AVERAGE), ()):
        found["weight average"].append(_r(scores_of(run)["test"], held_out))
    return dict(found)


def _r(scores: Mapping[str, NDArray], held_out: HeldOut) -> NDArray[np.float64]:
    """Mean over domains of r on all test texts, then in every resample: `[1 + B]`."""
    found = []
    for domain in DOMAINS:
        means, draws, own = held_out.means("test", domain), held_out.draws[domain], scores[domain]
        found.append([pearson(own, means), *pearson(own[draws], means[draws])])
    return np.mean(found, axis=0)


def measures(members: NDArray, dropped: NDArray | None, offset: float) -> dict[str, NDArray[np.float64]]:
    """How uncertain the order of each pair of texts is, by name, each `[N, N]`.

    Args:
        members: `[M, N]` scores.
        dropped: `[passes, N]` scores of one member with dropout, or None.
        offset: c of the combination.
    """
    every = members[:, :, None] - members[:, None]
    difference, std = every.mean(0), every.std(0, ddof=1)
    found = {
        "-|d|": -np.abs(difference),
        "std of d": std,
        "entropy of the mean P": -np.abs(expit(every).mean(0) - 0.5),
        "-|d| / sqrt(c² + std²)": -np.abs(difference) / np.sqrt(offset**2 + std**2),
    }
    if dropped is not None:
        found["std of d, MC dropout"] = (dropped[:, :, None] - dropped[:, None]).std(0, ddof=1)
    return found


def uncertainty_table(groups: Groups, start: Settings, held_out: HeldOut) -> str:
    """AUROC of a wrong order on clear pairs, and the top tenth's error rate beside the rest's, as markdown."""
    lines: list[list[Any]] = [
        ["pairs", "measure", "AUROC", "less -\\|d\\|", "errors, top tenth", "errors, rest", "runs"]
    ]
    outside = dict(zip(DOMAINS, out_of_domain(start), strict=True))
    for kind, cases in (("in domain", [(start, DOMAINS)]), ("out of domain", [(o, (d,)) for d, o in outside.items()])):
        found = [
            part
            for settings, domains in cases
            for runs in ensembles_of(groups, settings).values()
            for part in _of_ensemble(runs, held_out, domains)
        ]
        for name in dict.fromkeys(name for each in found for name in each):
            of_name = [each for each in found if name in each]
            auroc = np.mean([each[name][0] for each in of_name], axis=0)
            baseline = np.mean([each["-|d|"][0] for each in of_name], axis=0)
            top, rest = np.mean([each[name][1] for each in of_name], axis=0)
            change = "" if name == "-|d|" else cell(auroc[1:] - baseline[1:], signed=True)
            shown = f"{number(auroc[0])} {cell(auroc[1:])}"
            shares = f"{top:.1%}", f"{rest:.1%}"
            lines.append([kind, name.replace("|", "\\|"), shown, change, *shares, len(of_name)])
    return rows(lines)


def _of_ensemble(
    runs: Sequence[Run], held_out: HeldOut, domains: Sequence[str]
) -> list[dict[str, tuple[NDArray[np.float64], tuple[float, float]]]]:
    """For each domain by measure AUROCs `[1 + B]`, and error rates of the most uncertain tenth and the rest."""
    members = stacked(runs)
    stored = next((run["dropped"] for run in runs if "dropped" in run), None)
    offset = fitted_offset(members, held_out)
    result = []
    for domain in domains:
        scores = members[f"test/{domain}"]
        dropped = None if stored is None else np.stack([unpacked(text) for text in stored[domain]])
        better, worse, wrong = clear_pairs(scores, held_out.means("test", domain))
        weights = held_out.counts[domain][:FEWER]
        of_pairs = np.concatenate([np.ones((1, len(better))), weights[:, better] * weights[:, worse]])
        found = {}
        for name, values in measures(scores, dropped, offset).items():
            uncertainty = values[better, worse]
            top = uncertainty >= np.quantile(uncertainty, 0.9)
            found[name] = auroc(uncertainty, wrong, of_pairs), (wrong[top].mean(), wrong[~top].mean())
        result.append(found)
    return result


def clear_pairs(scores: NDArray, means: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Pairs more than half a point apart, better and worse text, and whether the ensemble's mean is wrong: `[P]`."""
    better, worse = np.nonzero(means[:, None] - means[None] > 0.5)
    mean = scores.mean(0)
    return better, worse, mean[better] < mean[worse]


def fitted_offset(members: Members, held_out: HeldOut) -> float:
    """The c with which |d| / sqrt(c² + std²) finds errors best on validation, in deviations of the scores."""
    candidates = (0.05, 0.1, 0.2, 0.5, 1.0, 10.0)
    found = np.zeros(len(candidates))
    for domain in DOMAINS:
        scores = members[f"validation/{domain}"]
        better, worse, wrong = clear_pairs(scores, held_out.means("validation", domain))
        for place, offset in enumerate(candidates):
            values = measures(scores, None, offset)["-|d| / sqrt(c² + std²)"][better, worse]
            found[place] += auroc(values, wrong, np.ones((1, len(better))))[0]
    return candidates[int(found.argmax())]


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
