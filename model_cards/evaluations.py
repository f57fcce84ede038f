"""What a card says about a trainer's evaluations."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from hf_align.files import finite
from hf_align.model_cards.data import columns_of
from hf_align.model_cards.facts import Evaluation
from hf_align.model_cards.render import metric_type
from hf_align.statistics import wilson_interval

NOT_RESULTS = ("runtime", "_per_second", "preparation_time", "epoch")
"""Endings of figures of an evaluation that say how long it took, and when it was."""


def logged_evaluation(trainer: Any, ids: list[str], tasks: Collection[str] = ()) -> list[Evaluation]:
    """The last value of every metric that `evaluate()` logged; shares of rows get Wilson's 95% interval.

    Shares of something else get none: of the pairs of rankings, of pairs without ties, of labels of `tasks`.
    """
    last: dict[str, float] = {}
    for entry in trainer.state.log_history:
        last.update({name: value for name, value in entry.items() if name.startswith("eval_")})
    parts = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {"": trainer.eval_dataset}
    result = []
    for name, value in last.items():
        if name.endswith(NOT_RESULTS) or not isinstance(value, (int, float)):
            continue
        metric = name.removeprefix("eval_")
        part = next((key for key in parts if key and metric.startswith(f"{key}_")), "")
        rows = len(parts[part]) if parts.get(part) is not None else None
        metric = metric.removeprefix(f"{part}_") if part else metric
        of_rows = not columns_of(parts.get(part)) & {"ranks", "label"} and metric.partition("/")[0] not in tasks
        share = metric_type(metric) == "accuracy" and rows and of_rows
        interval = wilson_interval(float(value), cast(int, rows)) if share else None
        words = f"held-out rows: {part}" if part else "held-out rows"
        result.append(Evaluation(metric, float(value), interval, rows, words))
    return result


def over_optimization_of(trainer: Any) -> dict[str, Any]:
    """Figures of the trainer's watch for over-optimisation; empty without one, or before its first evaluation."""
    return finite(getattr(getattr(trainer, "over_optimization", None), "figures", {}))


def own_samples(trainer: Any) -> list[dict[str, Any]]:
    """Samples of the last evaluation of a trainer that samples; by a judge, the score is the preference."""
    return [
        {
            # the last message of a conversation
            "prompt": prompt if isinstance(prompt := row["prompt"], str) else str(prompt[-1]["content"]),
            "after": row["response"],
            "score": round(row["reward"] if "reward" in row else row["win_rate"], 4),
        }
        for row in getattr(trainer, "eval_samples", None) or []
    ]
