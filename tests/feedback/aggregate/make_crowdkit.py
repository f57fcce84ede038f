"""Writes crowdkit.json: results of crowd-kit's Dawid-Skene on small generated inputs, which tests compare with ours.

Run with crowd-kit 1.4.2 in an environment of its own (`pip install crowd-kit==1.4.2`):

    python tests/feedback/aggregate/make_crowdkit.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

ITERATIONS = 10
CASES = {
    "two labels": {"labels": ["a", "b"], "errors": "full", "gold": 0},
    "three labels": {"labels": ["a", "b", "c"], "errors": "full", "gold": 0},
    "with gold": {"labels": ["a", "b", "c"], "errors": "full", "gold": 10},
    "one coin": {"labels": ["a", "b", "c"], "errors": "one_coin", "gold": 0},
}


def make_answers(labels: list[str], seed: int) -> tuple[list[list[str]], dict[str, str]]:
    """Rows (task, annotator, label) of 8 annotators on 40 tasks, 4 a task, and the truth."""
    rng = random.Random(seed)
    skills = [0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.2]
    truth = {f"t{n}": rng.choice(labels) for n in range(40)}
    rows = []
    for task, label in truth.items():
        for annotator in rng.sample(range(len(skills)), 4):
            wrong = [other for other in labels if other != label]
            given = label if rng.random() < skills[annotator] else rng.choice(wrong)
            rows.append([task, f"a{annotator}", given])
    return rows, truth


def results_of(answers: list[list[str]], gold: dict[str, str], errors: str) -> dict[str, Any]:
    """Probabilities by task and label, errors by annotator, true and given label, and priors."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene  # pyright: ignore[reportMissingImports]
    from crowdkit.aggregation.classification.dawid_skene import (  # pyright: ignore[reportMissingImports]
        OneCoinDawidSkene,
    )

    data = pd.DataFrame(answers, columns=["task", "worker", "label"])  # pyright: ignore[reportArgumentType]
    settings: dict[str, Any] = {"n_iter": ITERATIONS, "tol": float("-inf")}
    if errors == "full":
        model = DawidSkene(**settings).fit(data, pd.Series(gold) if gold else None)
    else:
        model = OneCoinDawidSkene(**settings).fit(data)
    confusion: dict[str, Any] = {}
    for (annotator, given), row in model.errors_.iterrows():
        for true, value in row.items():
            confusion.setdefault(annotator, {}).setdefault(true, {})[given] = float(value)
    probabilities = {task: {k: float(v) for k, v in row.items()} for task, row in model.probas_.iterrows()}
    return {"probabilities": probabilities, "confusion": confusion, "priors": model.priors_.to_dict()}


def main() -> None:
    """Write the file."""
    cases = []
    for seed, (name, case) in enumerate(CASES.items()):
        answers, truth = make_answers(case["labels"], seed)
        gold = dict(list(truth.items())[: case["gold"]])
        results = results_of(answers, gold, case["errors"])
        cases.append({"name": name, "errors": case["errors"], "answers": answers, "gold": gold, **results})
    content = {"library": "crowd-kit 1.4.2", "iterations": ITERATIONS, "cases": cases}
    Path(__file__).with_name("crowdkit.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
