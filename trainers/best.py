"""The best model of a run: saved when it is found, training stopped when none follows, its weights put back."""

from __future__ import annotations

from typing import Any, cast

from transformers import EarlyStoppingCallback, Trainer
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.fields import as_written
from hf_align.trainers.config import Callbacks

logger = logging.get_logger(__name__)


def with_early_stopping(callbacks: Callbacks, args: Any) -> Callbacks:
    """Add the callback for `early_stopping_patience`.

    Raises:
        UserError: One is among the callbacks already, or one there has no evaluations or no metric to go by.
    """
    given = any(isinstance(callback, EarlyStoppingCallback) for callback in callbacks or ())
    if not given:
        added = () if args.early_stopping_patience is None else (EarlyStoppingCallback(args.early_stopping_patience),)
        return [*(callbacks or ()), *added]
    one = "callbacks has an EarlyStoppingCallback, and"
    if args.early_stopping_patience is not None:
        raise UserError(f"{one} early_stopping_patience is set; give one of them.")
    if args.metric_for_best_model is None:
        raise UserError(f"{one} metric_for_best_model, which it goes by, isn't set; set it, such as to 'loss'.")
    if as_written(args.eval_strategy) == "no":
        raise UserError(f"{one} eval_strategy is 'no', so nothing is evaluated; set it to 'steps' or 'epoch'.")
    return callbacks


def patience_used(state: Any) -> int:
    """Evaluations in a row without a better one, at the checkpoint that a run was resumed from."""
    saved = cast(Any, state.stateful_callbacks).get(EarlyStoppingCallback.__name__, [])
    states: Any = saved if isinstance(saved, list) else [saved]
    return max((each["attributes"]["early_stopping_patience_counter"] for each in states), default=0)


class BestModelTrainer(Trainer):
    """A Trainer whose `load_best_model_at_end` puts back the best model of all evaluations.

    Trainer puts back the best of those that happen to be saved, too, and a resumed run has its patience anew.
    """

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best and self.args.load_best_model_at_end:
            self.control.should_save = True
        return is_best

    def _load_callback_state(self) -> None:
        super()._load_callback_state()
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                callback.early_stopping_patience_counter = patience_used(self.state)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is None:
            logger.warning(
                f"The last weights are kept: no evaluation gave a best {self.args.metric_for_best_model}, or its "
                "checkpoint is gone."
            )
        return super()._finalize_training(*args, **kwargs)
