"""Weight averages of members that were trained above the cache."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from numpy.typing import NDArray

from benchmarks.study import lora
from benchmarks.study.cache import CachedTexts
from benchmarks.study.records import append, read
from benchmarks.study.runs import Inputs, packed_scores, scores_of, summary, weights_file
from benchmarks.study.settings import Settings, same
from hf_align.data.embedded.ratings import Domain
from hf_align.models.reward import RewardModel
from hf_align.models.weight_average import weight_average


def run_all(inputs: Inputs, members: Sequence[Settings]) -> None:
    """Score the average of each whole ensemble with flipped labels that isn't in the results."""
    assert inputs.base is not None and inputs.weights is not None, "--base and --weights are needed"
    path = inputs.results / "runs.jsonl"
    done = [run["settings"] for run in read(path) if run["experiment"] == "average"]
    ensembles: defaultdict[Settings, list[Settings]] = defaultdict(list)
    for each in members:
        each = replace(each, frozen_layers=inputs.cache.layers)
        ensembles[replace(each, member=0)].append(each)
    for first, of_one in ensembles.items():
        files = [weights_file(inputs.weights, each) for each in of_one]
        if any(same(stored, first) for stored in done) or not all(file.exists() for file in files):
            continue
        models = [lora.load(inputs.base, inputs.cache, each, file) for each, file in zip(of_one, files, strict=True)]
        scorer = partial(_score, inputs.cache, weight_average(models))
        scores = scores_of(inputs.cache, scorer, test=True)
        entry = {"experiment": "average", "settings": first.to_json(), "summary": summary(inputs.cache, scores)}
        append(path, {**entry, "scores": packed_scores(scores)})
        print("average", first.seed, first.flips, entry["summary"]["test"], flush=True)


def _score(cache: CachedTexts, model: RewardModel, places: list[int], _: Domain) -> NDArray:
    return lora.rewards(model, cache, [cache.texts[n] for n in places]).numpy()
