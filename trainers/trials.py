"""Trainings that each start from nothing: `model_init`, and the trials of `hyperparameter_search`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast
from weakref import ref

from torch import nn
from transformers import Trainer
from transformers.trainer_utils import HPSearchBackend, enable_full_determinism, number_of_arguments, set_seed

from hf_align.errors import UserError
from hf_align.trainers.checks import evaluated_metrics
from hf_align.trainers.searching import Objective, check_search

ModelInit = Callable[..., Any]
"""Returns what a trainer takes as `model`, anew each time; it may take the trial as its argument."""

FIXED = (
    *("max_length", "max_prompt_length", "truncation_mode", "dataset_num_proc", "row_tokens", "curriculum", "tasks"),
    *("label_mode", "margin_mode", "contrastive_coefficient", "contrastive_labels", "output_dir", "bf16", "fp16"),
    *("acceleration", "activation_recompute", "gradient_checkpointing", "activation_checkpointing"),
)
"""Options that are read when a trainer is made, before its trials."""


def first_model(model: Any, model_init: ModelInit | None, optimizers: tuple[Any, Any]) -> Any:
    """The model to make a trainer with: the given one, or what `model_init` returns.

    Raises:
        UserError: Both or neither are given, or an optimizer, which would belong to the first model.
    """
    if model_init is None:
        if model is None:
            raise UserError("model is missing; give a name or a model, or a function as model_init.")
        return model
    if model is not None:
        raise UserError("model and model_init are given; leave one of them out.")
    if optimizers != (None, None):
        raise UserError(
            "optimizers doesn't go with model_init, which makes a new model for each training; give the class, as in "
            "optimizer_cls_and_kwargs=(torch.optim.AdamW, {'lr': 1e-4})."
        )
    return made_by(model_init, None)


def made_by(model_init: ModelInit, trial: Any, last: Any = None) -> Any:
    """What `model_init` returns for a trial.

    Args:
        model_init: The user's function.
        trial: The trial, or None.
        last: What it returned before.

    Raises:
        UserError: It takes other arguments, returns nothing, or the model that has been trained since.
    """
    count = number_of_arguments(model_init)
    if count > 1:
        raise UserError(f"model_init takes {count} arguments; it must take none, or the trial.")
    model = model_init(trial) if count else model_init()
    if model is None:
        raise UserError("model_init returned None; it must return a name or a model.")
    if model is last and isinstance(model, nn.Module):
        raise UserError("model_init returned the model that was trained before; it must make a new one each time.")
    return model


class TrialTrainer(Trainer):
    """A Trainer that makes its model anew for each training, if it has a `model_init`.

    Trainer would do so in the middle of `train`, when patches, layout and reference are those of the model before, and
    would take options of a trial unchecked.
    """

    args: Any
    _user_metrics: Any = None
    _last_made: Any = None
    _ready_for: Any = ()

    def renew(self, model: Any) -> None:
        """Take this model as the one given to the constructor, with a new adapter, head, reference and so on."""
        raise NotImplementedError

    def begin_trial(self, trial: Any) -> None:
        """Apply the options of a trial, and make the model for it; without `model_init` do nothing.

        Raises:
            UserError: An option doesn't exist, can't differ from trial to trial, or has an invalid value.
        """
        if self.model_init is None:
            return
        self._ready_for = ()
        if trial is not None and self.hp_search_backend is not None:
            self._check_values(trial)
        self._forget_model()
        self._hp_search_setup(trial)
        self._ready_for = (trial,)
        (enable_full_determinism if self.args.full_determinism else set_seed)(self.args.seed)
        model = made_by(self.model_init, trial, None if self._last_made is None else self._last_made())
        self.remember(model)
        self.renew(model)

    def remember(self, model: Any) -> None:
        """Note what `model_init` returned, to notice if it returns that again."""
        self._last_made = ref(model) if isinstance(model, nn.Module) else None

    def _check_values(self, trial: Any) -> None:
        backend = HPSearchBackend(self.hp_search_backend)
        values: Mapping[str, Any] = self.hp_space(trial) if backend == HPSearchBackend.OPTUNA else trial
        names = {field.name for field in dataclasses.fields(self.args) if field.init}
        for name in values:
            if name == "wandb" and backend == HPSearchBackend.RAY:
                continue
            if name not in names:
                raise UserError(f"hp_space: {type(self.args).__name__} has no option {name}.")
            if name in FIXED:
                raise UserError(
                    f"hp_space: {name} is read when the trainer is made, so it can't differ from trial to trial; make "
                    "a trainer for each value."
                )
        given = {name: value for name, value in values.items() if name in names}
        try:
            dataclasses.replace(self.args, **given)
        except (ValueError, TypeError) as error:
            raise UserError(f"hp_space: {error}") from error

    def _forget_model(self) -> None:
        """Let go of the model of the training before, so that there are never two in memory."""
        self.model = self.model_wrapped = cast(Any, None)
        self.optimizer = self.lr_scheduler = None
        for name in ("model", "optimizer", "lr_scheduler"):
            setattr(self.callback_handler, name, None)
        self.accelerator.free_memory()

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """The model that `begin_trial` made."""
        return self.model

    def _hp_search_setup(self, trial: Any) -> None:
        if self._ready_for != (trial,):  # Trainer calls it once more when the model is there
            super()._hp_search_setup(trial)

    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], dict[str, Any]] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str | list[str] = "minimize",
        backend: str | HPSearchBackend | None = None,
        hp_name: Callable[[Any], str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Search as Trainer does; each trial starts from a new model, adapter, head and reference.

        Args:
            hp_space: Gives the options of a trial.
            compute_objective: Computes from an evaluation's metrics what is minimised or, by `direction`, maximised.
                Default: `eval_loss`. (Trainer's is the sum of all metrics but the loss, which means nothing here.)
            n_trials: Number of trials.
            direction: "minimize" or "maximize", for several objectives a list.
            backend: Default: the one that is installed, such as "optuna".
            hp_name: Names a trial's folder. Default: `run-N`.
            kwargs: The backend's own options.

        Returns:
            The best run, as in Trainer.

        Raises:
            UserError: The trainer has no `model_init`, there is nothing to evaluate on, several processes train, the
                backend isn't installed, or an argument is wrong, as a metric that evaluations don't return.
        """
        if self.args.world_size > 1:
            raise UserError(
                f"hyperparameter_search runs in one process, and {self.args.world_size} train here: where a trial "
                "fails or is cut short in one, the others would wait for it; start one process on each GPU, with a "
                "storage of optuna that they share (storage=, study_name=, load_if_exists=True)."
            )
        if self.model_init is None:
            raise UserError(
                "hyperparameter_search needs a new model for each trial; give a function that returns one as "
                "model_init, in place of model."
            )
        if self.eval_dataset is None:
            raise UserError("hyperparameter_search compares evaluations, and there is no eval_dataset; give one.")
        found = check_search(backend, direction, n_trials)
        objective = Objective(compute_objective or loss_of, 0 if isinstance(direction, str) else len(direction))
        # A function of the user's, or a subclass, may add other metrics.
        if self._user_metrics is None and type(self).__module__.startswith("hf_align."):
            known = evaluated_metrics(self.eval_dataset, (*self.args.eval_metrics, *self.args.further_metrics))
            objective.try_on([*(f"eval_{name}" for name in known), "epoch"])
        try:
            return super().hyperparameter_search(hp_space, objective, n_trials, direction, found, hp_name, **kwargs)
        finally:
            self.hp_search_backend = None


def loss_of(metrics: Mapping[str, float]) -> float:
    """The loss of an evaluation.

    Raises:
        UserError: It is one of several data sets.
    """
    if "eval_loss" not in metrics:
        raise UserError(
            f"hyperparameter_search: compute_objective is missing, and there is no eval_loss; compute it from "
            f"{', '.join(metrics)}."
        )
    return metrics["eval_loss"]
