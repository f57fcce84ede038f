"""What all trainers share: a `transformers.Trainer` whose model takes batches of branches.

Losses are weighted right under accumulation and across processes, metrics are sums and counts.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EvalPrediction
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from hf_align.acceleration.recompute import enable_selective_recompute
from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.layout.cost import Lengths
from hf_align.models.policy import PolicyModel
from hf_align.models.reference import Reference
from hf_align.models.runner import LayoutRunner
from hf_align.models.wrapper import BranchModel
from hf_align.trainers.accelerated import AcceleratedTrainer
from hf_align.trainers.checkpoints import check_checkpoint
from hf_align.trainers.checks import check_best_metric
from hf_align.trainers.config import AlignmentConfig
from hf_align.trainers.data import parts_of, spread_rows
from hf_align.trainers.metrics import RowMetrics
from hf_align.trainers.saving import SavingTrainer

logger = logging.get_logger(__name__)


class BranchTrainer(AcceleratedTrainer, SavingTrainer):
    """A Trainer over rows that are a prompt with its responses.

    A subclass gives `row_losses`; rows weigh as much as their `weight` says (1 by default), over the whole accumulated
    batch and all processes: `loss = sum(weight * row_loss) / sum(weight)`.

    Attributes:
        runner: Calls models on batches; says which layout and attention it uses, and why.
        owns_attention: Whether the trainer loaded its models itself, by name, and may change how they attend. Objects
            keep what their owner loaded.
    """

    owns_attention = False
    reference: Reference  # only where there is one

    def __init__(self, model: BranchModel, args: AlignmentConfig, compute_metrics: Any = None, **kwargs: Any):
        if args.n_gpu > 1:
            logger.warning("Only one GPU is used by this process; start with `accelerate launch` to use all of them.")
            args._n_gpu = 1
        if args.remove_unused_columns:
            raise UserError("remove_unused_columns must be False: the trainer's own columns would be removed.")
        if compute_metrics is None and type(self).__module__.startswith("hf_align."):  # others may give more metrics
            check_best_metric(args, kwargs.get("eval_dataset"), args.eval_metrics)
        self.loss_is_scaled_for_ga = True
        self._train_metrics = RowMetrics()
        self._user_metrics = compute_metrics
        super().__init__(model=model, args=args, compute_metrics=self._eval_metrics, **kwargs)
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        self.runner = LayoutRunner(args, self.accelerator, self.sample_lengths, self.branch_models, sharded=sharded)
        if args.activation_recompute == "selective":
            if sharded:
                raise UserError("activation_recompute='selective' isn't made for sharded weights; use 'full'.")
            enable_selective_recompute(model)

    def row_losses(
        self, model: nn.Module, inputs: dict[str, Tensor], branches: Branches
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each row `[B]`, with gradient, and per-row metrics `[B]` by name.

        The first two metrics are what a `compute_metrics` function of the user's gets as predictions `[rows, 2]`.
        """
        raise NotImplementedError

    def sample_lengths(self) -> list[list[Lengths]]:
        """Lengths of prompts and responses of some batches, as training (or else evaluation) will meet them."""
        training = self.train_dataset is not None
        rows = parts_of([self.train_dataset if training else self.eval_dataset])[0]
        args = self.args
        size = args.per_device_train_batch_size if training else args.per_device_eval_batch_size
        return self.batch_lengths(rows.select(spread_rows(len(rows))), size, training=training)

    def batch_lengths(self, rows: Any, size: int, *, training: bool) -> list[list[Lengths]]:
        """Lengths of the rows' prompts and responses in batches of `size` responses or pairs."""
        raise NotImplementedError

    def branch_models(self) -> list[BranchModel]:
        """The models that compute the same batches, which must attend alike; the trained one first."""
        reference: Reference | None = getattr(self, "reference", None)
        module = None if reference is None else reference.module
        return [self.accelerator.unwrap_model(self.model), *([] if module is None else [module])]

    def accelerated_models(self) -> list[nn.Module]:
        """The same: a reference computes as its policy does."""
        return [*self.branch_models()]

    def make_reference(self, model: Any, *, new_adapter: bool, snapshot: bool = True) -> Reference:
        """The reference for this trainer's policy; see `Reference`."""

        def place(frozen: PolicyModel) -> nn.Module:
            if getattr(frozen.model, "quantization_method", None) is None:
                frozen = frozen.to(self.args.device)
            return self.accelerator.prepare_model(frozen, evaluation_mode=True)

        return Reference(cast(BranchModel, self.model), model, new_adapter=new_adapter, snapshot=snapshot, place=place)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Trainer's, with patches and, on a GPU, with the attention that the first batch chooses.

        Raises:
            UserError: There is no checkpoint of such a trainer to resume from.
        """
        if resume_from_checkpoint not in (None, False):
            check_checkpoint(resume_from_checkpoint, self.args)
        with self.runner.training(may_choose=self.owns_attention):
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Trainer's; before the first one attention is chosen."""
        self.runner.choose_attention(model, lambda: Branches(**cast(Any, self._prepare_inputs(inputs)["branches"])))
        return super().training_step(model, inputs, *args, **kwargs)

    # ---- loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The batch's share of the mean over the accumulated batch; see the class."""
        losses, metrics = self.row_losses(model, inputs, Branches(**inputs["branches"]))
        weight = inputs["weight"].to(losses.dtype)
        total = weight.sum() if num_items_in_batch is None else num_items_in_batch
        # Processes' gradients are averaged, so each counts its share of the global sum once per process.
        processes = 1 if num_items_in_batch is None else self.accelerator.num_processes
        loss = (weight * losses).sum() / total * processes
        if model.training:
            self._train_metrics.add(metrics)
        return (loss, {"row_loss": losses, **metrics}) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | None:
        if not batch_samples:
            return None
        total = torch.stack([batch["weight"].sum() for batch in batch_samples]).sum().to(device)
        total = cast(Tensor, self.accelerator.reduce(total, "sum"))
        return total.clamp(min=torch.finfo(total.dtype).tiny)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """6 operations a parameter and token."""
        return 6 * inputs["branches"]["input_ids"].numel() * sum(p.numel() for p in cast(Any, self.model).parameters())

    # ---- evaluation and metrics ----

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Any, Any]:
        """Loss and per-row metrics `[B, M]`; the labels are the rows' weights."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, rows = self.compute_loss(model, inputs, return_outputs=True)
        self._metric_names = list(rows)
        stacked = torch.stack([values.detach().float() for values in rows.values()], dim=1)
        return loss.detach(), stacked, inputs["weight"]

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """As Trainer's, but the loss is the weighted mean over rows, whatever the batches were."""
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        metrics = output.metrics or {}
        if f"{metric_key_prefix}_row_loss" in metrics:
            metrics[f"{metric_key_prefix}_loss"] = metrics.pop(f"{metric_key_prefix}_row_loss")
        return output

    def _eval_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        values, weight = np.asarray(prediction.predictions, np.float64), np.asarray(prediction.label_ids, np.float64)
        metrics = {}
        for name, column in zip(self._metric_names, values.T, strict=True):
            if name.startswith(("min_", "max_")):
                metrics[name] = float(column.min() if name.startswith("min_") else column.max())
            else:
                metrics[name] = float(
                    np.average(column, weights=weight if name == "row_loss" and weight.any() else None)
                )
        if self._user_metrics is not None:
            metrics.update(self._user_metrics(EvalPrediction(values[:, 1:3], np.zeros(len(values)))))
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the training metrics of all processes since the last log."""
        if "loss" in logs:
            logs.update(self._train_metrics.pop(self.accelerator))
        super().log(logs, start_time)
