"""What spam costs a reward model, with majority vote and with quality control.

    python -m benchmarks.feedback.spam --cache CACHE --features FEATURES --work WORK

CACHE and FEATURES are made by `python -m benchmarks.study cache` (with 0 layers) and `features` (layer 15). A seed's
runs are stored in WORK, so the command resumes, and adds ways to make labels that a stored run lacks.

An honest person draws one of the real votes of each of the two sentences; equal votes are a tie. The votes carry no
rater's identity, so these are simulated people without a rater's own habits. A clicker chooses a side, which says
nothing because sides are random; a flipper gives the opposite of an honest answer. Everybody also gets gold questions:
pairs whose mean ratings differ by 2 points or more, with the better one known. The clean answers are the same without
spam: clickers and flippers answer honestly.

The reward model is a linear Bradley-Terry head on the frozen base's pooled states, with soft labels; its penalty is
chosen on validation sentences, for each set of labels by itself. r is its correlation with the mean rating of held-out
sentences, averaged over the three domains. Intervals resample held-out sentences.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

from benchmarks.machine import describe_machine
from benchmarks.study.cache import CachedTexts
from benchmarks.study.features import Features
from hf_align.data.embedded.ratings import DOMAINS
from hf_align.feedback import Answer, Task, Verdict, aggregate_answers, judge_tasks
from hf_align.feedback.aggregate.votes import AggregationMethod
from hf_align.files import write_json
from hf_align.statistics import pearson
from hf_align.version import versions

LAYER, POOLING = 15, "mean"
PEOPLE, CLICKERS, FLIPPERS = 40, 8, 4
VOTES, GOLD_SHARE, GOLD_TASKS, CLEAR = 3, 0.1, 60, 2.0
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3)
RESAMPLES = 1000
RESULTS = Path(__file__).parent.parent / "results" / "feedback" / "spam.json"


@dataclass(frozen=True)
class Arm:
    """How the labels of a reward model come about.

    Attributes:
        spam: Whether there are clickers and flippers.
        method: Of `judge_tasks`.
        hard: Whether the label is the verdict's, not its preference.
    """

    spam: bool
    method: AggregationMethod
    hard: bool = False

    @property
    def name(self) -> str:
        """In the results."""
        return f"{'spam' if self.spam else 'clean'}, {self.method}{', label' if self.hard else ''}"


ARMS = tuple(
    Arm(spam, method, hard)
    for method in ("majority", "weighted", "dawid_skene", "skill_weighted")
    for hard in (False, True)
    for spam in (False, True)
)


@dataclass(frozen=True)
class Answers:
    """Tasks, and the answers to them with and without spam; task ids by the places of the two texts."""

    tasks: dict[str, Task]
    places: dict[str, tuple[int, int]]
    clean: list[Answer]
    spam: list[Answer]


def simulate(cache: CachedTexts, pairs: int, seed: int) -> Answers:
    """Ask people about pairs of training texts.

    Args:
        cache: The texts.
        pairs: Number of pairs, a third of each domain.
        seed: Of pairs, people and votes.
    """
    rng = np.random.default_rng([seed, pairs])
    tasks: dict[str, Task] = {}
    places: dict[str, tuple[int, int]] = {}
    for domain in DOMAINS:
        texts = [n for n, row in enumerate(cache.texts) if row["split"] == "train" and row["domain"] == domain]
        wanted = {None: pairs // len(DOMAINS), CLEAR: GOLD_TASKS // len(DOMAINS)}
        for least, count in wanted.items():
            start = len(tasks)
            while len(tasks) < start + count:
                i, j = rng.choice(texts, 2, replace=False).tolist()
                gap = cache.texts[i]["mean"] - cache.texts[j]["mean"]
                if least is not None and abs(gap) < least:
                    continue
                task = Task(domain, str(i), str(j), gold=None if least is None else float(gap > 0))
                if task.id in tasks:
                    continue  # its id says nothing of gold
                tasks[task.id], places[task.id] = task, (i, j)
    clean, spam = [], []
    for id, name in assigned(tasks, rng):
        one, other = (rng.choice(cache.texts[n]["ratings"]) for n in places[id])
        honest = (np.sign(one - other) + 1) / 2
        click = float(rng.integers(2))
        answer = Answer(f"{id}/{name}", id, str(name), "answer", float(honest), None, None, None, None, 0.0)
        clean.append(answer)
        given = click if name < CLICKERS else 1 - honest if name < CLICKERS + FLIPPERS else honest
        spam.append(replace(answer, preference=float(given)))
    return Answers(tasks, places, clean, spam)


def assigned(tasks: dict[str, Task], rng: np.random.Generator) -> list[tuple[str, int]]:
    """Who answers what: `VOTES` people a task, and everybody their share of gold questions."""
    asked = [id for id, task in tasks.items() if task.gold is None]
    gold = [id for id, task in tasks.items() if task.gold is not None]
    # People in random order over and over: everybody answers as many, nobody a task twice.
    chosen = [(id, int(name)) for id in asked for name in rng.choice(PEOPLE, VOTES, replace=False)]
    each = round(GOLD_SHARE / (1 - GOLD_SHARE) * len(chosen) / PEOPLE)
    for name in range(PEOPLE):
        chosen += [(id, name) for id in rng.choice(gold, min(each, len(gold)), replace=False).tolist()]
    return chosen


def fit(states: NDArray, first: NDArray, second: NDArray, labels: NDArray, penalty: float) -> NDArray[np.float64]:
    """Weights `[d]` of the Bradley-Terry head: soft labels of pairs, penalised by squares."""
    gaps = states[first] - states[second]

    def loss(weights: NDArray) -> tuple[float, NDArray]:
        logits = gaps @ weights
        value = np.logaddexp(0, logits) - labels * logits
        gradient = gaps.T @ (expit(logits) - labels) / len(labels)
        return float(value.mean() + penalty / 2 * weights @ weights), gradient + penalty * weights

    return minimize(loss, np.zeros(states.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x


def mean_r(scores: NDArray, cache: CachedTexts, split: str, draws: dict[str, NDArray] | None = None) -> Any:
    """r over a split's texts, averaged over domains; in each of the draws where they are given."""
    values = []
    for domain in DOMAINS:
        texts = np.array(
            [n for n, row in enumerate(cache.texts) if row["split"] == split and row["domain"] == domain], dtype=int
        )
        texts = texts[draws[domain]] if draws else texts
        means = np.array([row["mean"] for row in cache.texts])
        values.append(pearson(scores[texts], means[texts]))
    return np.mean(values, axis=0)


def run(cache: CachedTexts, states: NDArray, pairs: int, seed: int, stored: dict[str, Any]) -> dict[str, Any]:
    """All arms of a seed that aren't stored: scores of all texts; and how well spammers are detected."""
    answers = simulate(cache, pairs, seed)
    found: dict[str, Any] = {"scores": {}, **stored, "pairs": pairs, "seed": seed, "answers": len(answers.clean)}
    verdicts: dict[tuple[bool, str], dict[str, Verdict]] = {}
    for arm in ARMS:
        if arm.name in found["scores"]:
            continue
        if (key := (arm.spam, arm.method)) not in verdicts:
            given = answers.spam if arm.spam else answers.clean
            verdicts[key] = judge_tasks(answers.tasks, given, method=arm.method)
        asked = [each for each in verdicts[key].values() if each.source != "gold"]
        first, second = np.array([answers.places[each.task_id] for each in asked]).T
        labels = np.array([each.label if arm.hard else each.preference for each in asked])
        best = max(
            (states @ fit(states, first, second, labels, penalty) for penalty in PENALTIES),
            key=lambda scores: mean_r(scores, cache, "validation"),
        )
        found["scores"][arm.name] = np.round(best, 4).tolist()
        found.setdefault("r", {})[arm.name] = float(mean_r(best, cache, "test"))
    result = aggregate_answers(answers.tasks, answers.spam)
    assert result is not None
    skills = np.array([result.skills[str(name)] for name in range(PEOPLE)])
    parts = {"clickers": (0, CLICKERS), "flippers": (CLICKERS, CLICKERS + FLIPPERS), "honest": (12, PEOPLE)}
    found["skills"] = {name: float(skills[slice(*part)].mean()) for name, part in parts.items()}
    found["auroc"] = auroc(-skills, np.arange(PEOPLE) < CLICKERS + FLIPPERS)
    return found


def auroc(scores: NDArray, positive: NDArray) -> float:
    """Probability that a positive has the higher score; a tie counts half."""
    count = int(positive.sum())
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(scores) - count)))


def summarise(cache: CachedTexts, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """r of each arm and its loss against clean answers with majority vote, seeds averaged, texts resampled."""
    draws = {}
    for number, domain in enumerate(DOMAINS):
        size = sum(row["split"] == "test" and row["domain"] == domain for row in cache.texts)
        draws[domain] = np.random.default_rng(number).integers(size, size=(RESAMPLES, size))
    whole = {arm.name: np.array([each["r"][arm.name] for each in runs]) for arm in ARMS}
    resampled = {
        arm.name: np.mean([mean_r(np.array(each["scores"][arm.name]), cache, "test", draws) for each in runs], axis=0)
        for arm in ARMS
    }
    start = Arm(False, "majority").name
    table = {}
    for arm in ARMS:
        loss = resampled[start] - resampled[arm.name]
        table[arm.name] = {
            "r": float(whole[arm.name].mean()),
            "r_interval": np.percentile(resampled[arm.name], [2.5, 97.5]).tolist(),
            "loss": float((whole[start] - whole[arm.name]).mean()),
            "loss_interval": np.percentile(loss, [2.5, 97.5]).tolist(),
            "loss_of_seeds": (whole[start] - whole[arm.name]).tolist(),
        }
    return {
        "arms": table,
        "auroc": [each["auroc"] for each in runs],
        "skills": {name: float(np.mean([each["skills"][name] for each in runs])) for name in runs[0]["skills"]},
    }


def main() -> None:
    """Run what is missing, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cache", "features", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--pairs", type=int, nargs="+", default=[600, 2400])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    cache = CachedTexts.load(options.cache)
    pooled = Features.load(options.features, LAYER).pooled[POOLING].double().numpy()
    train = [n for n, row in enumerate(cache.texts) if row["split"] == "train"]
    states = ((pooled - pooled[train].mean(0)) / pooled[train].std(0)).clip(-5, 5)
    options.work.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for pairs in options.pairs:
        runs = []
        for seed in options.seeds:
            path = options.work / f"spam-{pairs}-{seed}.json"
            stored = json.loads(path.read_text()) if path.exists() else {}
            if {arm.name for arm in ARMS} - set(stored.get("r", ())):
                write_json(path, run(cache, states, pairs, seed, stored))
            runs.append(json.loads(path.read_text()))
            print(pairs, seed, {name: round(r, 4) for name, r in runs[-1]["r"].items()}, flush=True)
        sizes[str(pairs)] = {"answers": runs[0]["answers"], **summarise(cache, runs)}
    setting = {"people": PEOPLE, "clickers": CLICKERS, "flippers": FLIPPERS, "votes": VOTES, "gold_share": GOLD_SHARE}
    result = {
        "command": "python -m benchmarks.feedback.spam " + " ".join(sys.argv[1:]),
        "machine": describe_machine(),
        "versions": versions(),
        "seeds": options.seeds,
        **setting,
        "pairs": sizes,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
