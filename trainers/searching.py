"""What a hyperparameter search is asked for, checked before its first trial."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from transformers.hyperparameter_search import ALL_HYPERPARAMETER_SEARCH_BACKENDS
from transformers.trainer_utils import HPSearchBackend

from hf_align.errors import UserError

SEARCH = "hyperparameter_search"
DIRECTIONS = ("minimize", "maximize")
PROBE = 0.5
"""The value that every metric has where an objective is tried."""


def check_search(backend: Any, direction: Any, n_trials: Any) -> HPSearchBackend:
    """Refuse a search that couldn't begin.

    Args:
        backend: A name, or None for the first that is installed.
        direction: "minimize" or "maximize", or a list of these.
        n_trials: Number of trials.

    Returns:
        The backend.

    Raises:
        UserError: Names the argument.
    """
    for each in direction if isinstance(direction, list | tuple) and direction else [direction]:
        if each not in DIRECTIONS:
            raise UserError(f"{SEARCH}: direction is {each!r}; use 'minimize' or 'maximize'.")
    if not isinstance(n_trials, int) or isinstance(n_trials, bool) or n_trials < 1:
        raise UserError(f"{SEARCH}: n_trials is {n_trials!r}; give a whole number of at least 1.")
    known = {each.value: found() for each, found in ALL_HYPERPARAMETER_SEARCH_BACKENDS.items()}
    installed = [name for name, each in known.items() if each.is_available()]
    if backend is None and not installed:
        raise UserError(f"{SEARCH} needs a backend, and none is installed; pip install 'hf-align[search]' has optuna.")
    name = installed[0] if backend is None else getattr(backend, "value", backend)
    if name not in known:
        raise UserError(f"{SEARCH}: backend is {name!r}; use {' or '.join(map(repr, known))}.")
    if name not in installed:
        others = f", or use {' or '.join(map(repr, installed))}" if installed else ""
        package = known[name].pip_package or name
        raise UserError(f"{SEARCH}: backend is {name!r}, which isn't installed; pip install {package}{others}.")
    return HPSearchBackend(name)


class Objective:
    """`compute_objective` of a search, with one sentence for a metric that there isn't.

    Args:
        compute: The user's function of an evaluation's metrics.
        directions: Number of values that it must return; 0 for one that isn't in a list.
    """

    def __init__(self, compute: Callable[[dict[str, float]], Any], directions: int) -> None:
        self.compute, self.directions = compute, directions

    def __call__(self, metrics: Mapping[str, float]) -> Any:
        """What is minimised or maximised.

        Raises:
            UserError: It reads a metric that there isn't, or returns no number.
        """
        try:
            value = self.compute(dict(metrics))
        except KeyError as error:
            if (missing := error.args[0] if error.args else None) in metrics:
                raise
            raise UserError(
                f"{SEARCH}: compute_objective reads {missing!r}, which evaluations here don't return; they return "
                f"{', '.join(metrics)}."
            ) from error
        values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if self.directions and len(values) != self.directions:
            raise UserError(
                f"{SEARCH}: compute_objective returned {value!r}; direction lists {self.directions}: return as many "
                "numbers."
            )
        if (not self.directions and values != [value]) or not all(_is_number(each) for each in values):
            raise UserError(f"{SEARCH}: compute_objective returned {value!r}; return a number.")
        return value

    def try_on(self, names: Iterable[str]) -> None:
        """Compute it of these metrics, before anything is trained.

        Raises:
            UserError: As when it is called. What else the function raises is left to the trial.
        """
        try:
            self(dict.fromkeys(names, PROBE))
        except UserError:
            raise
        except Exception:  # of made-up values
            return


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) or (hasattr(value, "item") and getattr(value, "ndim", 0) == 0)
