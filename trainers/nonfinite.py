"""Non-finite numbers: detected by all processes in the step in which they occur, and never saved.

A process sees only its own losses and rewards, so the findings of all are combined before any process acts: one that
stopped or skipped a step alone would deadlock with the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import Trainer
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.models.finite import nonfinite_weight, saved_weights

logger = logging.get_logger(__name__)

IN_A_ROW = 3
"""Consecutive steps at which 'skip' stops, too: a persistent problem isn't an outlier."""

ON_NONFINITE = (
    "What to do once a loss, a gradient norm or, in PPO, a reward, log-prob, value or advantage is NaN or infinite on "
    f"any process. 'stop': end with an error, without taking the step. 'skip': skip the step, but stop at "
    f"the {IN_A_ROW}rd in a row; each of PPO's rollouts counts once. Steps that float16's loss scaling skips to "
    "find its scale are neither. Weights that aren't finite are never saved."
)
"""Help of the `on_nonfinite` field of all configs."""
NAN_FILTER = (
    "Log the mean of earlier losses for one that is NaN or infinite. Off: the log would hide what on_nonfinite acts on."
)
"""Help of Trainer's field, whose default all configs change."""
FIXES = "lower learning_rate, look at the rows and rewards of this step, or compute in float32 (bf16=False)"


def nonfinite_everywhere(values: Mapping[str, Iterable[Tensor]], accelerator: Accelerator) -> list[str]:
    """Names of the values that aren't all finite on some process. Every process must call it, with the same names.

    It synchronises with the device once.
    """
    here = [torch.stack([~each.isfinite().all() for each in tensors]).any() for tensors in values.values()]
    flags = torch.stack([flag.to(accelerator.device) for flag in here]).float()
    if accelerator.num_processes > 1:
        flags = cast(Tensor, accelerator.reduce(flags, "sum"))
    return [name for name, count in zip(values, flags.tolist(), strict=True) if count]


class FiniteTrainer(Trainer):
    """A Trainer that checks each step's loss and gradient norm before the optimizer step.

    Its config has `on_nonfinite`. Trainer itself would take the step, which makes all weights NaN, log the mean of
    earlier losses instead, and save.
    """

    args: Any

    def __init__(self, *args: Any, **kwargs: Any):
        self._step_losses: list[Tensor] = []
        self._in_a_row = self._left_out = 0  # steps; the latter since the last log
        super().__init__(*args, **kwargs)
        if self.is_deepspeed_enabled and self.args.on_nonfinite == "skip":
            raise UserError(
                "on_nonfinite is 'skip'; with DeepSpeed it must be 'stop', since its backward pass takes the step."
            )

    # ---- hooks ----

    def begin_step(self) -> None:
        """Save the state that `void_step` restores."""

    def void_step(self) -> None:
        """Remove the metrics of a step that isn't taken."""

    # ---- the step ----

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._step_losses, self._in_a_row, self._left_out = [], 0, 0
        return super()._inner_training_loop(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Train on a micro-batch; check the loss after the step's last one."""
        if not self._step_losses:
            self._total_before = self._tr_loss.clone()
            self.begin_step()
        loss = super().training_step(*args, **kwargs)
        self._step_losses.append(loss)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient norm, which Trainer computes once per step, before the optimizer."""
        norm: Any = super()._get_grad_norm(model, grad_norm=grad_norm)
        losses, self._step_losses = self._step_losses, []
        whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # for sharded gradients
        norms = [] if whole is None else [torch.as_tensor(whole, device=self.args.device)]
        found = nonfinite_everywhere(
            {"loss": losses, "grad_norm": norms} if norms else {"loss": losses}, self.accelerator
        )
        if not found or (found == ["grad_norm"] and self._scaler_seeks()):
            self._in_a_row = 0
            return norm
        self.meet_nonfinite(found, f"step {self.state.global_step + 1}")
        self._leave_out()
        return norm

    def _scaler_seeks(self) -> bool:
        """Whether an infinite gradient may come from float16's loss scale, which the scaler then lowers."""
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.is_enabled() and scaler.get_scale() > 1

    def meet_nonfinite(self, found: list[str], where: str, error: UserError | None = None) -> None:
        """Log the findings of all processes; return if the step or rollout is to be skipped.

        Args:
            found: Names of the non-finite values.
            where: The step or rollout, for the message.
            error: A more specific error of this process.

        Raises:
            UserError: The run ends here.
        """
        self._in_a_row += 1
        self._record(found, self.state.global_step + 1)
        text = f"{where}: {' and '.join(found)} {'is' if len(found) == 1 else 'are'} NaN or infinite"
        weight = nonfinite_weight(dict(self.accelerator.unwrap_model(self.model).named_parameters()))
        if weight is not None:
            text += f", and so is the weight {weight}"
        if self.args.on_nonfinite == "skip" and self._in_a_row < IN_A_ROW:
            if self.is_world_process_zero():
                logger.warning(f"{text}; it is left out (on_nonfinite='skip'). {error or ''}".rstrip())
            return
        if error is not None:
            raise error
        if self.args.on_nonfinite == "skip":
            raise UserError(f"{text}, for the {IN_A_ROW}rd time in a row: nothing is saved; {FIXES}.")
        raise UserError(f"{text}: the step isn't taken and nothing is saved; {FIXES}, or set on_nonfinite='skip'.")

    def _record(self, found: list[str], step: int) -> None:
        """Add the findings of a step, counted from 1, to the log and its history."""
        self.log({**{f"nonfinite/{name}": 1.0 for name in found}, "nonfinite/step": step})

    def _leave_out(self) -> None:
        """Let Trainer count the step without an optimizer step, its loss or its metrics."""
        self.accelerator.gradient_state._set_sync_gradients(False)  # then the optimizer's step does nothing
        accelerator = self.accelerator
        if accelerator.scaler is not None and accelerator.native_amp and accelerator.mixed_precision == "fp16":
            accelerator.scaler.update()  # as in the optimizer's step: the norm has unscaled the gradients
        self._tr_loss.copy_(self._total_before)
        self.void_step()
        self.leave_out_of_means()

    def leave_out_of_means(self) -> None:
        """Let the means of losses, `loss` and `train_loss`, be those of the other steps."""
        self._left_out += 1
        self._initial_global_step += 1  # from which Trainer counts the steps of `train_loss`

    # ---- logs ----

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self._window = self.state.global_step - self._globalstep_last_logged
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as Trainer does, with `loss` as a mean over the steps taken, and warn of NaN in an evaluation."""
        if "loss" in logs and self._left_out:
            taken = self._window - self._left_out
            logs["loss"] = logs["loss"] * self._window / taken if taken > 0 else float("nan")
            self._left_out = 0
        strange = [name for name, value in logs.items() if name.startswith("eval_") and is_nonfinite(value)]
        if strange and self.is_world_process_zero():
            logger.warning(f"Evaluation at step {self.state.global_step}: {', '.join(strange)} NaN or infinite.")
        super().log(logs, start_time)

    # ---- saving ----

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        weights = saved_weights(self.accelerator.unwrap_model(self.model))
        here = torch.tensor(0.0 if nonfinite_weight(weights) is None else math.nan)
        if nonfinite_everywhere({"weights": [here]}, self.accelerator):
            self._record(["weights"], self.state.global_step)
            self._refuse_to_save(weights, f"checkpoint-{self.state.global_step}")
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # Without the other processes: only those that write call this.
        weights = saved_weights(self.accelerator.unwrap_model(self.model)) if state_dict is None else state_dict
        if nonfinite_weight(weights) is not None:
            self._refuse_to_save(weights, str(output_dir or self.args.output_dir))
        super()._save(output_dir, state_dict)

    def _refuse_to_save(self, weights: Mapping[str, Tensor], place: str) -> None:
        name = nonfinite_weight(weights)
        what = "a weight of another process" if name is None else f"the weight {name}"
        raise UserError(
            f"{Path(place).name} isn't saved: {what} is NaN or infinite; continue from an earlier checkpoint with a "
            "lower learning_rate."
        )


def is_nonfinite(value: Any) -> bool:
    """Whether a value of a log is a number that is NaN or infinite."""
    return isinstance(value, float) and not math.isfinite(value)
