"""Learning curves share an axis of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_align.evaluation.grid.curves import learning_curves
from hf_align.evaluation.grid.runs import Run


def run(seed: int, history: list[dict[str, Any]], **facts: Any) -> Run:
    return Run("a", "a", seed, {"judge": np.zeros(2)}, facts={"rows": 100, "steps": 10, "history": history, **facts})


def test_seeds_are_averaged_where_all_logged() -> None:
    kl = "objective/kl"
    first = run(0, [{"step": 5, kl: 1.0}, {"step": 10, kl: 2.0}, {"step": 10, "loss": 9.0}])
    second = run(1, [{"step": 10, kl: 4.0}, {"step": 7, "eval_loss": 1.0}])
    [curves] = learning_curves({"a": {0: first, 1: second}, "b": {0: run(0, [{"step": 5, kl: float("nan")}])}})
    assert curves["name"] == kl and curves["curves"] == {"a": [(100.0, 3.0, 2.0, 4.0)]}


def test_steps_that_begin_anew_have_no_common_axis() -> None:
    history = [{"step": 8, "objective/kl": 1.0}, {"step": 2, "objective/kl": 1.0}]
    assert learning_curves({"a": {0: run(0, history)}}) == []
    assert learning_curves({"a": {0: run(0, history[:1], rows=0)}}) == []
