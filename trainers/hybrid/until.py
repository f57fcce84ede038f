"""Criteria that end a stage before its last step, as callbacks whose state is in the stage's checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from hf_align.errors import UserError
from hf_align.fields import as_written


class Criterion(TrainerCallback, ExportableState):
    """Ends a training when it says that it is over; a subclass fills in `why_over` and keeps its state in `points`.

    Attributes:
        points: What was measured, by step: JSON values.
    """

    def __init__(self) -> None:
        self.points: list[list[float]] = []

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; JSON keeps every bit of a float."""
        return {"args": {}, "attributes": {"points": list(self.points)}}

    def why_over(self) -> str | None:
        """The reason why no steps are left, or None."""
        raise NotImplementedError

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on with the checkpoint's state, or start anew."""
        saved: Any = (state.stateful_callbacks or {}).get(type(self).__name__)  # type: ignore[union-attr]
        entry = saved[0] if isinstance(saved, list) and saved else saved
        self.points = list(entry["attributes"]["points"]) if state.global_step and isinstance(entry, dict) else []

    def add(self, step: int, value: float, args: TrainingArguments, control: TrainerControl) -> None:
        """Take a measurement, once a step, and end the training, with a checkpoint, where it is the last one."""
        if self.points and self.points[-1][0] >= step:  # measured before the checkpoint that the run was resumed from
            return
        self.points.append([step, value])
        if self.why_over() is not None:
            control.should_training_stop = True
            control.should_save = as_written(args.save_strategy) != "no"


class Stalls(Criterion):
    """Ends a training when a metric of its evaluations no longer improves.

    Args:
        metric: The metric, without `eval_`.
        patience: Evaluations in a row without improvement.
        min_change: Change that counts as improvement.
        greater: Whether the metric is to rise.
    """

    def __init__(self, metric: str, patience: int, min_change: float, greater: bool) -> None:
        super().__init__()
        self.metric, self.patience, self.min_change, self.greater = metric, patience, min_change, greater

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the metric of an evaluation."""
        value = (metrics or {}).get(f"eval_{self.metric}")
        if value is None:
            found = ", ".join(name.removeprefix("eval_") for name in metrics or ())
            raise UserError(f"until: evaluations have no {self.metric}; they have {found}.")
        self.add(state.global_step, float(value), args, control)

    def waited(self) -> int:
        """Evaluations since the last improvement; one that isn't a number is none."""
        best, since = -math.inf, 0
        for _, value in self.points:
            signed = value if self.greater else -value
            if signed > best + self.min_change:
                best, since = signed, 0
            else:
                since += 1
        return since

    def why_over(self) -> str | None:
        """Where it has waited long enough."""
        if self.waited() < self.patience:
            return None
        return f"{self.metric} did not improve in {self.patience} evaluation{'s' * (self.patience > 1)}"


class SpendsKL(Criterion):
    """Ends a training when its policy is as far from the start as it may be.

    Args:
        limit: KL from the start, in nats per response.
        every: Steps between measurements.
        begun_at: The KL before the first step.
        measure: Measures it now; called between steps.
    """

    def __init__(self, limit: float, every: int, begun_at: float, measure: Callable[[], float]) -> None:
        super().__init__()
        self.limit, self.every, self.begun_at, self.measure = limit, every, begun_at, measure

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure it every so many steps."""
        if state.global_step % self.every == 0:
            self.add(state.global_step, self.measure(), args, control)

    def why_over(self) -> str | None:
        """Where the limit is reached."""
        reached = self.points[-1][1] if self.points else self.begun_at
        return f"KL from the start is {reached:.3g} of {self.limit:.3g} nats" if reached >= self.limit else None
