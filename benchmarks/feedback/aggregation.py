"""Aggregation of planted annotators' labels: accuracy, skills, calibration, seconds, and detection of spammers.

    python -m benchmarks.feedback.aggregation

Planted: 14 annotators who are right with probability .85, 4 with .55, 2 with .15; 5 labels a task, two labels that are
equally frequent. The oracle knows every skill. Accuracy and calibration are of tasks without a gold label. An
annotator's skill is compared with the planted probability, and with the share of their labels in this very sample that
are right: the first can't be known better than the second. Calibration: 10 bins of the probability of the more probable
label, from .5 to 1 (expected calibration error).

Detection: 70% annotators with .85, 20% clickers (.5) and 10% flippers (.15), 20 in all; everybody labels 15 tasks,
some of which are gold, the rest 5 times in all; the area under the curve of -skill, spammers against the others.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from benchmarks.feedback.spam import auroc
from benchmarks.machine import describe_machine
from hf_align.feedback import dawid_skene, majority_vote
from hf_align.files import write_json
from hf_align.version import versions

SKILLS = np.array([0.85] * 14 + [0.55] * 4 + [0.15] * 2)
SPAMMERS = np.array([0.85] * 14 + [0.5] * 4 + [0.15] * 2)
MIRROR = {0: 1, 1: 0}
VARIANTS: dict[str, dict[str, Any]] = {
    "full, no smoothing": {"smoothing": (0, 0)},
    "full": {},
    "one_coin": {"errors": "one_coin"},
    "symmetric": {"mirror": MIRROR},
}
VOTES = 5
RESULTS = Path(__file__).parent.parent / "results" / "feedback" / "aggregation.json"
Rows = list[tuple[int, int, int]]


def label(rng: np.random.Generator, truth: int, skill: float) -> int:
    """A label that is right with this probability."""
    return truth if rng.random() < skill else 1 - truth


def plant(seed: int, tasks: int) -> tuple[Rows, NDArray[np.intp]]:
    """Labels of the planted annotators, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, tasks)
    who = [rng.choice(len(SKILLS), VOTES, replace=False).tolist() for _ in range(tasks)]
    return [
        (task, a, label(rng, int(truth[task]), float(SKILLS[a]))) for task in range(tasks) for a in who[task]
    ], truth


def calibration_error(probabilities: NDArray, truth: NDArray) -> float:
    """Expected calibration error of P(label 1)."""
    sure = np.maximum(probabilities, 1 - probabilities)
    right = (probabilities > 0.5) == truth
    bins = np.minimum((sure - 0.5) * 20, 9).astype(int)
    return float(sum(abs((sure - right)[bins == n].sum()) for n in range(10)) / len(truth))


def measure(rows: Rows, truth: NDArray, gold: dict[int, int], options: dict[str, Any] | None) -> dict[str, float]:
    """Figures of one variant, or of majority vote for None."""
    start = time.perf_counter()
    result = majority_vote(rows, gold) if options is None else dawid_skene(rows, gold, **options)
    seconds = time.perf_counter() - start
    rest = np.array([task for task in range(len(truth)) if task not in gold])
    table = np.array(rows)
    ability = logit(SKILLS)[table[:, 1]] * (2 * table[:, 2] - 1)
    oracle = expit(np.bincount(table[:, 0], ability, len(truth)))[rest]
    probabilities = np.array([result.probabilities[task][1] for task in rest.tolist()])
    skills = np.array([result.skills[name] for name in range(len(SKILLS))])
    right = table[:, 2] == truth[table[:, 0]]
    realised = np.bincount(table[:, 1], right) / np.bincount(table[:, 1])
    return {
        "accuracy": float(((probabilities > 0.5) == truth[rest]).mean()),
        "oracle": float(((oracle > 0.5) == truth[rest]).mean()),
        "skill_error": float(abs(skills - SKILLS).mean()),
        "least_skill_error": float(abs(realised - SKILLS).mean()),
        "sample_skill_error": float(abs(skills - realised).mean()),
        "ece": calibration_error(probabilities, truth[rest]),
        "oracle_ece": calibration_error(oracle, truth[rest]),
        "seconds": seconds,
    }


def detect(seed: int, gold_tasks: int) -> float:
    """AUROC of spammers after 15 tasks each, `gold_tasks` of them gold."""
    rng = np.random.default_rng([seed, gold_tasks])
    people, each = len(SPAMMERS), 15 - gold_tasks
    tasks = people * each // VOTES
    truth = rng.integers(0, 2, tasks + gold_tasks).tolist()
    rows: Rows = []
    for _ in range(each):  # rounds in which everybody labels one task: nobody gets a task twice
        order = rng.permutation(people)
        first = len(rows) // VOTES
        rows += [
            (first + n // VOTES, a, label(rng, truth[first + n // VOTES], float(SPAMMERS[a])))
            for n, a in enumerate(order)
        ]
    gold = {task: truth[task] for task in range(tasks, tasks + gold_tasks)}
    rows += [(task, a, label(rng, truth[task], float(SPAMMERS[a]))) for task in gold for a in range(people)]
    skills = dawid_skene(rows, gold, mirror=MIRROR).skills
    return auroc(-np.array([skills[a] for a in range(people)]), SPAMMERS < 0.6)


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    planted = []
    for tasks, share in product((1000, 200), (0.0, 0.05)):
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ("majority", *VARIANTS)}
        for seed in range(options.seeds):
            rows, truth = plant(seed, tasks)
            gold = {task: int(truth[task]) for task in range(round(share * tasks))}
            for name in found:
                found[name].append(measure(rows, truth, gold, VARIANTS.get(name)))
        for name, runs in found.items():
            values = {key: [each[key] for each in runs] for key in runs[0]}
            means = {key: float(np.mean(each)) for key, each in values.items()}
            behind = [each["oracle"] - each["accuracy"] for each in runs]
            worst = {"behind_oracle": max(behind), "ece": max(values["ece"]), "skill_error": max(values["skill_error"])}
            planted.append({"tasks": tasks, "gold": share, "method": name, **means, "worst": worst})
            print(tasks, share, name, {key: round(value, 4) for key, value in means.items()}, worst, flush=True)
    detection = {}
    for gold_tasks in range(4):
        values = [detect(seed, gold_tasks) for seed in range(10 * options.seeds)]
        detection[str(gold_tasks)] = {"auroc": float(np.mean(values)), "5%": float(np.percentile(values, 5))}
        print(gold_tasks, detection[str(gold_tasks)], flush=True)
    result = {
        "command": "python -m benchmarks.feedback.aggregation " + " ".join(sys.argv[1:]),
        "machine": describe_machine(),
        "versions": versions(),
        "seeds": options.seeds,
        "planted": planted,
        "detection": detection,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
