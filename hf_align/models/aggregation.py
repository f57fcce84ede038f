"""One score of several members' scores: the methods of ensembles, and those that are fixed rules.

Notation: M members, R responses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from math import isfinite
from typing import Literal, get_args

import torch
from torch import Tensor

from hf_align.errors import UserError
from hf_align.numbers import number_problem

Rule = Literal["mean", "median", "trimmed_mean", "min", "uncertainty_weighted"]
Fitted = Literal["dynamic", "stacking"]
Method = Rule | Fitted | Literal["weight_average"]
RULES: tuple[str, ...] = get_args(Rule)
"""Methods that are formulas of the members' scores."""
FITTED: tuple[str, ...] = get_args(Fitted)
"""Methods that have to be fitted on held-out rows."""
METHODS: tuple[str, ...] = (*RULES, *FITTED, "weight_average")
WEIGHTED = ("mean", "weight_average")
"""Methods that take weights of the members."""


def check_method(
    method: str,
    members: int,
    *,
    weights: Sequence[float] | None = None,
    trim: float = 0.2,
    uncertainty_coef: float = 1.0,
) -> None:
    """Refuse settings that no ensemble of so many members can have, or that would have no effect.

    Raises:
        UserError: An unknown method, weights that don't fit it or the members, a trim that cuts nobody or everybody, a
            coefficient below 0, or one of them isn't a number.
    """
    if method not in METHODS:
        raise UserError(f"method is {method!r}; use one of {', '.join(METHODS)}.")
    if members < 1:
        raise UserError("members is empty; give at least one reward model.")
    for name, value in (("trim", trim), ("uncertainty_coef", uncertainty_coef)):
        if number_problem(value) == "not a number":
            raise UserError(f"{name} is {value!r}; give a number.")
    if weights is not None:
        if isinstance(weights, str | Mapping) or not isinstance(weights, Iterable):
            raise UserError(f"weights is {weights!r}; give a list of numbers, one for each member.")
        if any(number_problem(weight) == "not a number" for weight in weights):
            raise UserError(f"weights are {weights!r}; give a list of numbers, one for each member.")
        _check_weights(method, members, [float(weight) for weight in weights])
    if method == "trimmed_mean":
        if not 0 < trim < 0.5:
            raise UserError(f"trim is {trim}; it is the share of members cut at each end, above 0 and below 0.5.")
        if int(trim * members) == 0:
            raise UserError(
                f"trim={trim} of {members} members cuts none at either end, which would be the mean; "
                + (f"give trim={_least_trim(members)}." if members > 2 else "use method='mean', or 3 members or more.")
            )
    if not (isfinite(uncertainty_coef) and uncertainty_coef >= 0):
        raise UserError(f"uncertainty_coef is {uncertainty_coef}; give a number from 0 (which is the mean).")


def _check_weights(method: str, members: int, weights: list[float]) -> None:
    if method not in WEIGHTED:
        raise UserError(
            f"weights have no effect on method={method!r}; leave them out, or use method='mean' or 'weight_average'."
        )
    if len(weights) != members:
        raise UserError(f"weights has {len(weights)} numbers and there are {members} members; give one for each.")
    if not all(isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise UserError(f"weights are {weights}; give finite numbers from 0, not all 0.")


def _least_trim(members: int) -> float:
    """The smallest trim in hundredths that cuts a member at each end."""
    return next(share / 100 for share in range(1, 50) if int(share / 100 * members))


def aggregate(
    scores: Tensor,
    method: str,
    *,
    weights: Sequence[float] | None = None,
    trim: float = 0.2,
    uncertainty_coef: float = 1.0,
) -> Tensor:
    """Combine the members' scores of each response by a rule.

    - "mean": the mean, weighted by `weights / sum(weights)`.
    - "median": the middle score; of an even number of members the mean of the two in the middle.
    - "trimmed_mean": the mean without the `int(trim * M)` lowest and as many highest scores.
    - "min": the lowest score (worst-case optimisation, Coste et al. 2023).
    - "uncertainty_weighted": mean - uncertainty_coef * variance (of the M scores, divided by M; Coste et al.).

    All but the mean compare the members' scores with each other, so they have to be on one scale.

    Args:
        scores: `[M, R]`.
        method: One of `RULES`.
        weights: Of the members, for "mean"; they need not sum to 1. Default: all alike.
        trim: Share of the members cut at each end, for "trimmed_mean".
        uncertainty_coef: Coefficient of the variance, for "uncertainty_weighted".

    Returns:
        `[R]`.

    Raises:
        UserError: See `check_method`.

    Example:
        >>> import torch
        >>> from hf_align.models.aggregation import aggregate
        >>> scores = torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 0.0]])
        >>> [aggregate(scores, method).tolist()[0] for method in ("mean", "median", "min")]
        [3.0, 2.0, 1.0]
        >>> aggregate(scores, "uncertainty_weighted", uncertainty_coef=0.5).tolist()  # variance 14 / 3
        [0.6666667461395264, 0.0]
    """
    if scores.ndim != 2:
        raise ValueError(f"scores must be [members, responses], got {list(scores.shape)}.")
    if method in METHODS and method not in RULES:
        raise UserError(f"method={method!r} is no rule on scores alone; use one of {', '.join(RULES)}.")
    members = len(scores)
    check_method(method, members, weights=weights, trim=trim, uncertainty_coef=uncertainty_coef)
    if method == "mean":
        return _mean(scores, [float(weight) for weight in weights] if weights is not None else None)
    if method == "min":
        return scores.amin(0)
    if method == "uncertainty_weighted":
        mean = _mean(scores)
        return mean - uncertainty_coef * _mean((scores - mean).square())
    cut = int(trim * members) if method == "trimmed_mean" else (members - 1) // 2
    return _mean(scores.sort(0).values[cut : members - cut])


def _mean(scores: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    weights = [1.0] * len(scores) if weights is None else weights
    return weighted_sum(scores, weights) / sum(weights)


def weighted_sum(scores: Tensor, weights: Iterable[float | Tensor]) -> Tensor:
    """`weights @ scores`, member by member: a response's score must not depend on how many others are in the batch."""
    return reduce(torch.add, [weight * of_member for weight, of_member in zip(weights, scores, strict=True)])
