"""Evaluations by rows: metrics are means over all rows, and `compute_metrics` gets what `predict()` returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer
from transformers.trainer_utils import EvalLoopOutput

PREDICTIONS = "predictions"
"""Key under which `row_losses` may return what `compute_metrics` gets."""


class WholeEvaluations(Trainer):
    """A Trainer whose `dataloader_drop_last` leaves out rows of training, never of an evaluation or prediction."""

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> DataLoader:
        dropping = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = dropping and is_training
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = dropping


class EvaluatingTrainer(WholeEvaluations):
    """A Trainer whose `compute_loss` returns with the loss per-row metrics: values `[B]`, or sums and counts `[B, 2]`.

    What `compute_metrics` gets and `predict()` returns are the columns under "predictions", which are no metric, or
    else the first two metrics; the labels are 0, since the first response of a row is the better one.

    Attributes:
        terms: Metrics that are terms of the loss, with their coefficients; sums and counts.
    """

    args: Any
    terms: Mapping[str, float] = MappingProxyType({})
    _user_metrics: Callable[..., dict[str, float]] | None = None

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Any, Any]:
        """Loss and per-row metrics side by side `[B, M]`; the labels are the rows' weights."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, rows = cast(tuple[Tensor, dict[str, Tensor]], self.compute_loss(model, inputs, return_outputs=True))
        columns = {name: values.detach().float().view(len(values), -1) for name, values in rows.items()}
        self._widths = {name: values.shape[1] for name, values in columns.items()}
        return loss.detach(), torch.cat(list(columns.values()), dim=1), inputs["weight"]

    def evaluation_loop(
        self, dataloader: DataLoader, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Evaluate as Trainer does, but with the weighted mean over rows as loss, independent of batches."""
        self._batches: list[tuple[np.ndarray, np.ndarray]] = []  # of `batch_eval_metrics`
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        metrics = output.metrics or {}
        if f"{metric_key_prefix}_row_loss" in metrics:
            metrics[f"{metric_key_prefix}_loss"] = metrics.pop(f"{metric_key_prefix}_row_loss")
        if output.predictions is None:
            return output
        shown = self._shown(output.predictions)
        return output._replace(predictions=shown.predictions, label_ids=shown.label_ids)

    def _shown(self, values: Any) -> EvalPrediction:
        """What `compute_metrics` gets of the numbers `[rows, M]`, or of a list of them, one a batch."""
        start, width = 1, 2
        if PREDICTIONS in self._widths:
            names = list(self._widths)
            start = sum(self._widths[name] for name in names[: names.index(PREDICTIONS)])
            width = self._widths[PREDICTIONS]
        parts = values if isinstance(values, list) else [values]
        shown = [
            [part[:, start : start + width] for part in parts],
            [part[:, 0] * 0 for part in parts],
            [part[:, 0] for part in parts] if "loss" in self.args.include_for_metrics else None,
        ]
        predictions, labels, losses = shown if isinstance(values, list) else [each and each[0] for each in shown]
        return EvalPrediction(predictions, labels, losses=losses)  # pyright: ignore[reportArgumentType]

    def _eval_metrics(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """Metrics of all rows; with `batch_eval_metrics` those so far, until `compute_result` says that it is all."""
        values: Any = prediction.predictions
        weight: Any = prediction.label_ids
        further: dict[str, float] = {}
        if self._user_metrics is not None:
            batchwise = {"compute_result": compute_result} if self.args.batch_eval_metrics else {}
            further = self._user_metrics(self._shown(values), **batchwise)
        if self.args.batch_eval_metrics:
            self._batches.append((values.cpu().numpy(), weight.cpu().numpy()))
            if not compute_result:
                return {}
            values, weight = map(list, zip(*self._batches, strict=True))
        if isinstance(values, list):
            values, weight = np.concatenate(values), np.concatenate(weight)
        return self._means(values.astype(np.float64), weight.astype(np.float64)) | further

    def _means(self, values: np.ndarray, weight: np.ndarray) -> dict[str, float]:
        """Metrics from the numbers of all rows `[rows, M]` and their weights `[rows]`."""
        parts = np.split(values, np.cumsum(list(self._widths.values()))[:-1], axis=1)
        columns = dict(zip(self._widths, parts, strict=True))
        columns.pop(PREDICTIONS, None)
        means = {name: _mean(name, column, weight if name == "row_loss" else None) for name, column in columns.items()}
        metrics = {name: mean for name, mean in means.items() if mean is not None}
        metrics["row_loss"] += sum(coefficient * metrics.get(name, 0.0) for name, coefficient in self.terms.items())
        return metrics


def _mean(name: str, column: np.ndarray, weight: np.ndarray | None) -> float | None:
    """A metric of all rows, from its columns `[rows, 1]` or sums and counts `[rows, 2]`; None if nothing counts."""
    if column.shape[1] == 2:
        total, count = column.sum(0)
        return float(total / count) if count else None
    if name.startswith(("min_", "max_")):
        return float(column.min() if name.startswith("min_") else column.max())
    return float(np.average(column[:, 0], weights=weight if weight is not None and weight.any() else None))
