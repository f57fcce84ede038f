"""Accuracy by subset, and the rows to read."""

import numpy as np

from hf_align.data.comparison_rows import read_comparisons
from hf_align.evaluation.subsets import measure_subsets
from hf_align.evaluation.worst_rows import worst_rows
from hf_align.statistics import Resampling


def test_the_worst_subset_has_enough_prompts_to_be_called_so() -> None:
    sizes, right = {"small": 3, "good": 20, "bad": 20}, {"small": 0, "good": 19, "bad": 10}
    rows, scores = [], []
    for subset, size in sizes.items():
        for n in range(size):
            rows.append({"prompt": f"{subset}{n}", "chosen": "a", "rejected": "b", "subset": subset})
            scores += [1.0, 0.0] if n < right[subset] else [0.0, 1.0]
    data = read_comparisons(rows)
    figures = measure_subsets(data, np.array(scores), Resampling(data.units, resamples=500))
    assert figures is not None
    assert [(row["name"], row["pairs"], row["accuracy"]) for row in figures["subsets"]] == [
        *(("small", 3, 0.0), ("bad", 20, 0.5), ("good", 20, 0.95))
    ]
    assert figures["worst"] == "bad" and figures["mean"] == np.mean([0.0, 0.5, 0.95])
    low, high = figures["subsets"][1]["accuracy_interval"]
    assert 0.2 < low < 0.5 < high < 0.8
    assert measure_subsets(read_comparisons([rows[0] | {"subset": None}][:1]), np.zeros(2), Resampling(1)) is None


def test_the_worst_rows_are_the_surest_errors_and_show_no_text_twice() -> None:
    votes = {"sure": 1.0, "split": 0.6, "right": 1.0, "undecided": 0.5}
    rows = [{"prompt": name, "chosen": f"{name} a", "rejected": "b", "label": p} for name, p in votes.items()]
    rows.append({"prompt": "sure", "chosen": "sure a", "rejected": "c", "label": 0.1})
    data = read_comparisons(rows)
    scores = np.array([0.0, 2.0, 0.0, 11.0, 1.0, 0.0, 0.0, 9.0, 0.0, -5.0])
    worst = worst_rows(data, scores, np.ones(10))
    # sure: 2 x 1; split: 11 x .2; and in the last row c is better by .8 but -5 below: 5 x .8, with the text "sure a".
    assert [(row["rows"], row["better"], row["worse"]) for row in worst] == [
        ([4, 4], "c", "sure a"),
        ([1, 1], "split a", "b"),
    ]
    assert worst[0] | {"better_score": -5.0, "worse_score": 0.0, "label": 0.9, "prompt": "sure"} == worst[0]
    assert len(worst_rows(data, scores, np.ones(10), count=1)) == 1
