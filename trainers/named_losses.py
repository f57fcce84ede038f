"""Losses that a config names: read from its `loss_type`, checked beside its other options, called with their results
checked."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from hf_align.errors import UserError
from hf_align.losses.batch import PreferenceBatch
from hf_align.losses.registry import EVERY_OPTION, NOT_OFFERED, PREFERENCE_LOSSES, LossFunction, PreferenceLoss
from hf_align.rewards.named import read_function

OF_EVERY_LOSS = ("label_smoothing", "f_divergence_type", "ld_alpha")
"""Options about the pairs or the reference, which all losses of a list must follow, not only one of them."""
COMPARES_NOTHING = ("sft",)
"""Losses to which the first two of these say nothing."""


@dataclass(frozen=True)
class NamedLoss:
    """A loss of a run.

    Attributes:
        name: Its name in `PREFERENCE_LOSSES`, or `MODULE:FUNCTION` or `FILE.py:FUNCTION` of the user's.
        function: The loss.
    """

    name: str
    function: LossFunction

    @property
    def is_users(self) -> bool:
        """Whether it isn't one of `PREFERENCE_LOSSES`."""
        return not isinstance(self.function, PreferenceLoss)

    @property
    def reference_free(self) -> bool:
        """Whether it needs no reference; a function says so by an attribute of this name."""
        return bool(getattr(self.function, "reference_free", False))

    def reads(self, option: str) -> bool:
        """Whether the loss depends on an option; a function of the user's may read any."""
        return not isinstance(self.function, PreferenceLoss) or option in self.function.options

    def __call__(self, batch: PreferenceBatch, config: Any) -> Tensor:
        """Loss of each pair `[B]`.

        Raises:
            UserError: A function of the user's fails, or doesn't return one finite number a pair with a gradient.
        """
        if not self.is_users:
            return self.function(batch, config)
        if not len(batch.chosen_logps):  # online: a micro-batch of ties
            return batch.chosen_logps
        try:
            losses = self.function(batch, config)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # any error of the user's function
            raise UserError(f"loss_type: {self.name} failed: {type(error).__name__}: {error}") from error
        self._check(losses, batch)
        return losses

    def _check(self, losses: Any, batch: PreferenceBatch) -> None:
        logps = batch.chosen_logps
        if not isinstance(losses, Tensor) or losses.shape != logps.shape:
            shape = list(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise UserError(
                f"loss_type: {self.name} returned {shape} for {len(logps)} pairs; return a tensor of one loss a pair, "
                f"{list(logps.shape)}."
            )
        if torch.is_grad_enabled() and logps.requires_grad and not losses.requires_grad:
            raise UserError(
                f"loss_type: {self.name} returned losses without a gradient, from which nothing is learnt; compute "
                "them from the batch's log-probs by torch operations, without detach() or item()."
            )
        inputs = (logps, batch.rejected_logps)
        if not losses.isfinite().all() and all(each.isfinite().all() for each in inputs):
            raise UserError(
                f"loss_type: {self.name} returned a loss that is NaN or infinite of log-probs that are finite; bound "
                "what it takes the exponential or logarithm of, or what it divides by."
            )


def read_losses(loss_type: Any) -> list[NamedLoss]:
    """The losses that a config's `loss_type` names.

    Args:
        loss_type: A name in `PREFERENCE_LOSSES`, `FILE.py:FUNCTION`, `MODULE:FUNCTION`, a function, or a list of these.

    Raises:
        UserError: It is none of these.
    """
    entries = list(loss_type) if isinstance(loss_type, list | tuple) else [loss_type]
    if not entries:
        raise UserError("loss_type is an empty list; name a loss.")
    return [_read(each) for each in entries]


def _read(entry: Any) -> NamedLoss:
    if callable(entry):
        function = cast(LossFunction, entry)
        return NamedLoss(function.name if isinstance(function, PreferenceLoss) else name_of(function), function)
    if isinstance(entry, str) and entry in PREFERENCE_LOSSES:
        return NamedLoss(entry, PREFERENCE_LOSSES[entry])
    if isinstance(entry, str) and ":" in entry:
        return NamedLoss(entry, read_function(entry, "loss_type"))
    if reason := NOT_OFFERED.get(entry) if isinstance(entry, str) else None:
        raise UserError(f"loss_type is {entry!r}, which isn't offered: {reason}; use another, such as 'sigmoid'.")
    names = ", ".join(PREFERENCE_LOSSES)
    near = difflib.get_close_matches(str(entry), PREFERENCE_LOSSES, n=1)
    meant = f"did you mean {near[0]!r}? Others are" if near else "use"
    raise UserError(f"loss_type is {entry!r}; {meant} {names}, a function, or a list of these.")


def name_of(function: Callable[..., Any]) -> str:
    """`MODULE:FUNCTION`, by which a recipe could name a function that its module has under its own name."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', type(function).__module__)}:{name}"


def check_options(config: Any, losses: Sequence[NamedLoss]) -> None:
    """Refuse options that the losses ignore, and those that a loss lacks.

    Args:
        config: Options of the run; at its default an option isn't given.
        losses: Its losses.

    Raises:
        UserError: Names the option, the loss and the losses that have it.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for option in EVERY_OPTION:
        value = getattr(config, option, None)
        if value == defaults.get(option):
            continue
        ignoring = [each.name for each in losses if not each.reads(option)]
        exempt = COMPARES_NOTHING if option in OF_EVERY_LOSS and option != "ld_alpha" else ()
        strict = [name for name in ignoring if name not in exempt] if option in OF_EVERY_LOSS else []
        if strict or len(ignoring) == len(losses):
            raise UserError(
                f"{option} is {value!r}, which loss_type {(strict or ignoring)[0]!r} ignores; leave it out, or use "
                f"{_either([name for name, each in PREFERENCE_LOSSES.items() if option in each.options])}."
            )
    alpha = config.f_alpha_divergence_coef
    if config.f_divergence_type != "alpha_divergence" and alpha != defaults["f_alpha_divergence_coef"]:
        raise UserError(
            f"f_alpha_divergence_coef is {alpha!r}, which f_divergence_type {config.f_divergence_type!r} ignores; "
            "leave it out, or set f_divergence_type to 'alpha_divergence'."
        )
    if any(each.name == "exo_pair" for each in losses) and not config.label_smoothing:
        raise UserError(
            "label_smoothing is 0, at which loss_type 'exo_pair' is infinite; set it above 0, such as to 1e-3 as in "
            "the paper."
        )


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
