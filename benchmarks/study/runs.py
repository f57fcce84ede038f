"""A run from its settings to its line in the results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.study import heads, lora
from benchmarks.study.cache import CachedTexts
from benchmarks.study.features import Features
from benchmarks.study.figures import calibration_error, temperature_of, vote_shares
from benchmarks.study.records import Run, append, packed, read
from benchmarks.study.settings import Settings, same
from hf_align.data.embedded.ratings import DOMAINS, Domain
from hf_align.evaluation.ratings import pair_accuracy
from hf_align.statistics import pearson

HELD_OUT: tuple[Literal["validation", "test"], ...] = ("validation", "test")
Scores = dict[str, dict[str, NDArray]]
"""Scores by split and domain, in the cache's order."""
Scorer = Callable[[list[int], Domain], NDArray]
"""Scores texts of a domain, given by their places in the cache."""


@dataclass(frozen=True)
class Inputs:
    """What runs start from.

    Attributes:
        cache: The texts and their states.
        base: Folder of the language model, for runs above the cache.
        features: Folder of the features, for heads.
        results: Folder of the results.
        weights: Folder in which trained weights above the cache are kept; None: they aren't.
    """

    cache: CachedTexts
    base: str | None
    features: Path | None
    results: Path
    weights: Path | None = None


def places_of(cache: CachedTexts, split: str, domain: str) -> list[int]:
    """Places in the cache of a split's texts of a domain."""
    return [n for n, row in enumerate(cache.texts) if row["split"] == split and row["domain"] == domain]


def scores_of(cache: CachedTexts, scorer: Scorer, *, test: bool) -> Scores:
    """Scores of the held-out texts."""
    splits = HELD_OUT if test else HELD_OUT[:1]
    return {split: {domain: scorer(places_of(cache, split, domain), domain) for domain in DOMAINS} for split in splits}


def summary(cache: CachedTexts, scores: Scores) -> dict[str, dict[str, dict[str, float]]]:
    """r, accuracy on pairs more than half a point apart and ECE with validation's temperature, by split and domain."""
    result: dict[str, dict[str, dict[str, float]]] = {split: {} for split in scores}
    for domain in DOMAINS:
        temperature = 1.0
        for split, of_split in scores.items():
            texts = [cache.texts[n] for n in places_of(cache, split, domain)]
            means, shares = np.array([text["mean"] for text in texts]), vote_shares([text["ratings"] for text in texts])
            values = of_split[domain]
            if split == "validation":
                temperature = temperature_of(values, shares)
            result[split][domain] = {
                "r": round(float(pearson(values, means)), 4),
                "accuracy": round(pair_accuracy(values, means)[0], 4),
                "ece": round(calibration_error(values / temperature, shares), 4),
                "temperature": round(temperature, 4),
            }
    return result


class Trained:
    """A trained head or model: its scores, and those of networks drawn from it by dropout.

    Args:
        inputs: What runs start from.
        settings: The run's.
        features: Those of the settings' layer, for heads.
    """

    def __init__(self, inputs: Inputs, settings: Settings, features: Features | None = None):
        self.cache, self.settings = inputs.cache, settings
        if settings.trained == "features":
            assert features is not None
            places = heads.training_texts(inputs.cache, settings)
            texts = [inputs.cache.texts[n] for n in places]
            self.model: Any = heads.train(features, places, texts, settings)
        else:
            assert inputs.base is not None, "--base is needed for runs above the cache"
            self.model = lora.train(inputs.base, inputs.cache, settings)
            if inputs.weights is not None:
                lora.save(self.model, weights_file(inputs.weights, settings))

    def __call__(self, places: list[int], domain: Domain) -> NDArray:
        """Scores of texts of a domain."""
        if self.settings.trained == "features":
            return self.model.rewards(places).numpy()
        return lora.rewards(self.model, self.cache, [self.cache.texts[n] for n in places]).numpy()

    def dropped(self, domain: Domain) -> NDArray:
        """Scores `[PASSES, N]` of a domain's test texts."""
        places = places_of(self.cache, "test", domain)
        if self.settings.trained == "features":
            return self.model.dropped_rewards(places).numpy()
        return lora.dropped_rewards(self.model, self.cache, [self.cache.texts[n] for n in places]).numpy()


def run_all(inputs: Inputs, name: str, settings: Iterable[Settings], file: str) -> None:
    """Do the runs that aren't in the results yet.

    Args:
        inputs: What runs start from.
        name: Of the experiment that they belong to.
        settings: The runs.
        file: Of the results.
    """
    path = inputs.results / file
    done = [run["settings"] for run in read(path)]
    layers: dict[int, Features] = {}
    for each in settings:
        each = replace(each, frozen_layers=inputs.cache.layers if each.trained != "features" else 0)
        if any(same(stored, each) for stored in done):
            continue
        if each.trained == "features" and each.layer not in layers:
            assert inputs.features is not None, "--features is needed for runs on features"
            layers[each.layer] = Features.load(inputs.features, each.layer)
        start = time.perf_counter()
        trained = Trained(inputs, each, layers.get(each.layer))
        seconds = round(time.perf_counter() - start, 1)
        scores = scores_of(inputs.cache, trained, test=each.test)
        entry: Run = {"experiment": name, "settings": each.to_json(), "seconds": seconds}
        entry |= {"summary": summary(inputs.cache, scores), "scores": packed_scores(scores)}
        if each.bag < 1 and each.member == 0 and not each.flips and drops(each):
            entry["dropped"] = {domain: [packed(one) for one in trained.dropped(domain)] for domain in DOMAINS}
        append(path, entry)
        done.append(entry["settings"])
        r = {split: [of_domain["r"] for of_domain in of_split.values()] for split, of_split in entry["summary"].items()}
        print(name, changed(each), r, f"{seconds} s", flush=True)


def weights_file(folder: Path, settings: Settings) -> Path:
    """Where a run's trained weights are kept."""
    digest = sha256(json.dumps(settings.to_json(), sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{digest}.safetensors"


def drops(settings: Settings) -> bool:
    """Whether to score with dropout, too: ten passes take longer than training above the cache, so once there."""
    return settings.trained == "features" or settings.seed == 0


def packed_scores(scores: Scores) -> dict[str, dict[str, str]]:
    """Scores as they are stored."""
    return {split: {domain: packed(values) for domain, values in each.items()} for split, each in scores.items()}


def changed(settings: Settings) -> dict[str, Any]:
    """Settings that aren't the defaults."""
    defaults = Settings().to_json()
    return {name: value for name, value in settings.to_json().items() if value != defaults[name]}
