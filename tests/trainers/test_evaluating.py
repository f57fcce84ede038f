"""Evaluations give the same metrics whichever way batches are put together; `predict()` is what metrics are made of."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import EvalPrediction

from tests.trainers.arguments.runs import dpo, ppo, reward, sft
from tests.trainers.pairs import pairs


class Seen:
    """A `compute_metrics` that keeps what it gets."""

    def __init__(self) -> None:
        self.calls: list[tuple[EvalPrediction, bool]] = []

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        self.calls.append((prediction, compute_result))
        return {"called": float(len(self.calls))} if compute_result else {}


def metrics_of(trainer: Any) -> dict[str, float]:
    times = ("runtime", "per_second", "preparation", "called")
    return {name: value for name, value in trainer.evaluate().items() if not any(each in name for each in times)}


@pytest.mark.parametrize("make", [dpo, reward])
def test_the_ways_to_evaluate_give_the_same_metrics_and_predictions(
    make: Any, tiny_model_dir: str, tmp_path: Path
) -> None:
    seen, model = Seen(), {"model": tiny_model_dir} if make is reward else {}
    trainer = make(tmp_path, **model, others={"compute_metrics": seen})
    whole = metrics_of(trainer)
    predicted = trainer.predict(pairs(3))
    expected = cast(Any, seen.calls[0][0].predictions)
    assert expected.shape == predicted.predictions.shape == (3, 2)
    np.testing.assert_array_equal(predicted.predictions, expected)
    np.testing.assert_array_equal(predicted.label_ids, np.zeros(3))
    name = "rewards/margins" if make is dpo else "margin"
    assert whole[f"eval_{name}"] == pytest.approx(float((expected[:, 0] - expected[:, 1]).mean()), abs=1e-5)

    def again(**changes: Any) -> list[tuple[EvalPrediction, bool]]:
        seen.calls.clear()
        for option, value in changes.items():
            setattr(trainer.args, option, value)
        assert metrics_of(trainer) == pytest.approx(whole, abs=1e-4)
        return seen.calls

    ((given, _),) = again(per_device_eval_batch_size=2, eval_accumulation_steps=1, include_for_metrics=["loss"])
    np.testing.assert_allclose(given.predictions, expected, atol=1e-5)
    losses = cast(Any, given.losses)
    assert losses.shape == (3,) and losses.mean() == pytest.approx(whole["eval_loss"], abs=1e-5)

    ((given, _),) = again(eval_do_concat_batches=False)
    assert [part.shape for part in cast(Any, given.predictions)] == [(2, 2), (1, 2)]
    assert [part.shape for part in cast(Any, given.losses)] == [(2,), (1,)]
    np.testing.assert_allclose(np.concatenate(cast(Any, given.predictions)), expected, atol=1e-5)
    assert [part.shape for part in cast(Any, trainer.predict(pairs(3)).predictions)] == [(2, 2), (1, 2)]

    calls = again(eval_do_concat_batches=True, batch_eval_metrics=True)
    assert [done for _, done in calls] == [False, True]
    torch.testing.assert_close(torch.cat([each.predictions for each, _ in calls]), torch.tensor(expected))  # type: ignore[misc]
    assert trainer.evaluate()["eval_called"] == 4, "the last call's result counts"


def test_predictions_of_rankings_are_all_rewards_best_first(tiny_model_dir: str, tmp_path: Path) -> None:
    rows = [
        {"prompt": "Say", "responses": [" a", " bb", " c"], "ranking": [2, 0, 1]},
        {"prompt": "Go", "responses": [" d", " e"], "ranking": [0, 1]},
    ]
    trainer = reward(tmp_path, model=tiny_model_dir, others={"eval_dataset": Dataset.from_list(rows)})
    predictions = trainer.predict(Dataset.from_list(rows)).predictions
    by_hand = [trainer.model.score([row["prompt"]] * len(row["responses"]), row["responses"]) for row in rows]
    expected = [[by_hand[0][1], by_hand[0][2], by_hand[0][0]], [*by_hand[1], math.nan]]
    np.testing.assert_allclose(predictions, expected, atol=1e-4)


def test_a_policy_by_rollouts_predicts_what_compute_metrics_gets(tmp_path: Path) -> None:
    seen = Seen()
    trainer = ppo(tmp_path, others={"compute_metrics": seen})
    predicted = trainer.predict(cast(Any, trainer.eval_dataset)).predictions
    np.testing.assert_array_equal(predicted, cast(Any, seen.calls[0][0].predictions))


def test_only_the_loss_of_demonstrations_where_nothing_else_is_wanted(tmp_path: Path) -> None:
    assert sft(tmp_path, prediction_loss_only=True).predict(sft(tmp_path).train_dataset).predictions is None
