"""The loss, a mean of weighted rows over the whole accumulated batch and all processes, and the metrics of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Trainer

from hf_align.layout.branches import Branches
from hf_align.trainers.evaluating import PREDICTIONS
from hf_align.trainers.metrics import RowMetrics
from hf_align.trainers.uneven import REAL_ROWS, real_rows


class WeightedTrainer(Trainer):
    """A Trainer whose loss is a mean of row losses: `sum(weight * row_loss) / sum(weight)`, plus its `terms`.

    Rows are weighted by their `weight` (1 by default). Each term is the mean of a metric over what it counts, such as
    the labels of an auxiliary task.

    Attributes:
        terms: Coefficients of metrics of `row_losses` that are terms of the loss: sums and counts `[B, 2]` that contain
            the rows' weights.
    """

    terms: Mapping[str, float]

    def __init__(self, *args: Any, **kwargs: Any):
        self.loss_is_scaled_for_ga = True
        self._train_metrics = RowMetrics()
        super().__init__(*args, **kwargs)

    def row_losses(
        self, model: nn.Module, inputs: dict[str, Any], branches: Branches
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each row `[B]`, with gradient, and per-row metrics by name: values `[B]` or sums and counts `[B, 2]`.

        A user's `compute_metrics` gets as predictions what is under "predictions" `[B, n]`, which is no metric, or else
        the first two metrics.
        """
        raise NotImplementedError

    def term_counts(self, batch: dict[str, Any]) -> list[Tensor]:
        """Sum over a batch of what each of `terms` counts, in their order."""
        return []

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The batch's share of the mean over the accumulated batch; see the class."""
        losses, metrics = self.row_losses(model, inputs, inputs["branches"])
        weight = inputs["weight"].to(losses.dtype)
        given = _not_zero(self._totals([inputs])) if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        total, *totals = given.view(-1)
        # Gradients are averaged over processes, so multiply each process's share of the global sum by their number.
        processes = 1 if num_items_in_batch is None else self.accelerator.num_processes
        loss = (weight * losses).sum() / total
        for (name, coefficient), count in zip(self.terms.items(), totals, strict=True):
            loss = loss + coefficient * metrics[name][:, 0].sum() / count
        if model.training:
            rows = inputs.get(REAL_ROWS)
            self._train_metrics.add({name: values[:rows] for name, values in metrics.items() if name != PREDICTIONS})
        return (loss * processes, {"row_loss": losses, **metrics}) if return_outputs else loss * processes

    def _totals(self, batches: list[dict[str, Any]]) -> Tensor:
        """Sums over batches that the loss is divided by: of the rows' weights, then of what each term counts."""
        sums = [torch.stack([batch["weight"].sum(), *self.term_counts(batch)]) for batch in batches]
        return torch.stack(sums).sum(0)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | None:
        if not batch_samples:
            return None
        last = batch_samples[-1]
        if (rows := real_rows(self, len(last["weight"]))) < len(last["weight"]):
            last[REAL_ROWS], last["weight"][rows:] = rows, 0.0
        total = cast(Tensor, self.accelerator.reduce(self._totals(batch_samples).to(device), "sum"))
        return _not_zero(total)

    def _prepare_input(self, data: Any) -> Any:
        return data.to(self.args.device) if isinstance(data, Branches) else super()._prepare_input(data)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """6 operations per parameter and token."""
        return 6 * inputs["branches"].input_ids.numel() * sum(p.numel() for p in cast(Any, self.model).parameters())

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._train_metrics = RowMetrics()  # without rows of an earlier run, or of an attempt that ran out of memory
        return super()._inner_training_loop(*args, **kwargs)

    def begin_step(self) -> None:
        """Mark the start of a step, so that its metrics can be undone."""
        self._train_metrics.begin_step()

    def void_step(self) -> None:
        """Drop the metrics of a step that isn't taken."""
        self._train_metrics.drop_step()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the training metrics of all processes since the last log."""
        if "loss" in logs:
            logs.update(self._train_metrics.pop())
        super().log(logs, start_time)


def _not_zero(sums: Tensor) -> Tensor:
    return sums.clamp(min=torch.finfo(sums.dtype).tiny)
