"""Several annotators' labels of one task as one label: the result of any method, majority and weighted vote."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hf_align.errors import UserError
from hf_align.feedback.aggregate.labels import Labels, LabelTable, read_labels

AggregationMethod = Literal["dawid_skene", "skill_weighted", "weighted", "majority"]
EQUAL = 1e-9
"""Probabilities that differ by less are a tie."""


@dataclass(frozen=True)
class Aggregation:
    """What several annotators' labels come to.

    Attributes:
        method: How they were aggregated.
        labels: Label of each task; of equally probable ones the first in sorted order (the first given, if they can't
            be sorted).
        probabilities: Probability of each label by task: shares of votes, or a posterior (`dawid_skene`).
        skills: Expected share of an annotator's labels that are right.
        confusion: By annotator and true label, how probable each label of theirs is.
        priors: Share of each label among tasks.
        answers: Number of labels of each annotator.
        iterations: Of the estimation; 0 without one.
        objective: Log-likelihood after each iteration, with the log-density of the prior where there is one.
        converged: Whether the estimation came to rest.

    Example:
        >>> from hf_align.feedback import majority_vote
        >>> result = majority_vote([("t", "anna", 1), ("t", "ben", 1), ("t", "cleo", 0), ("t", "dan", 1)])
        >>> result.probabilities["t"], result.answers["anna"]
        ({0: 0.25, 1: 0.75}, 1)
    """

    method: AggregationMethod
    labels: dict[Any, Any]
    probabilities: dict[Any, dict[Any, float]]
    skills: dict[Any, float]
    confusion: dict[Any, dict[Any, dict[Any, float]]]
    priors: dict[Any, float]
    answers: dict[Any, int]
    iterations: int = 0
    objective: tuple[float, ...] = ()
    converged: bool = True


def majority_vote(answers: Labels, gold: Mapping[Any, Any] | None = None) -> Aggregation:
    """Share of each label among a task's; the label is the commonest.

    Args:
        answers: Triples (task, annotator, label), dicts or columns of these names; labels of any hashable type.
        gold: Known label by task, taken as it is.

    Returns:
        Probabilities are shares of votes. Skills and confusion are measured against these shares, the annotator's own
        vote included, so they flatter.

    Raises:
        UserError: A label is missing, not hashable or of mixed types.

    Example:
        >>> from hf_align.feedback import majority_vote
        >>> majority_vote([("t", "anna", "yes"), ("t", "ben", "yes"), ("t", "cleo", "no")]).labels
        {'t': 'yes'}
    """
    table = read_labels(answers, gold)
    shares = table.shares()
    return aggregation("majority", table, shares, confusion_of(table, shares), shares.mean(0))


def weighted_vote(answers: Labels, weights: Mapping[Any, float], gold: Mapping[Any, Any] | None = None) -> Aggregation:
    """Share of the weight that each label has among a task's annotators.

    With weights log(skill / (1 - skill)) the vote of two labels is the optimal one for known skills (Nitzan and
    Paroush 1982).

    Args:
        answers: As for `majority_vote`.
        weights: Weight of each annotator, at least 0. A task whose annotators all have weight 0 has even shares.
        gold: As for `majority_vote`.

    Raises:
        UserError: As `majority_vote`, and if an annotator has no weight or a negative one.

    Example:
        >>> from hf_align.feedback import weighted_vote
        >>> answers = [("t", "anna", "yes"), ("t", "ben", "no"), ("t", "cleo", "no")]
        >>> weighted_vote(answers, {"anna": 3.0, "ben": 1.0, "cleo": 1.0}).probabilities
        {'t': {'no': 0.4, 'yes': 0.6}}
    """
    table = read_labels(answers, gold)
    for annotator in table.annotators:
        weight = weights.get(annotator)
        if weight is None or not 0 <= weight < float("inf"):
            raise UserError(f"weight of annotator {annotator!r} is {weight}: give a number from 0")
    of_annotator = np.array([weights[annotator] for annotator in table.annotators], dtype=float)
    shares = table.shares(of_annotator[table.annotator])
    return aggregation("weighted", table, shares, confusion_of(table, shares), shares.mean(0))


def confusion_of(table: LabelTable, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Confusion `[A, K, K]` (true label, given label) against probabilities `[T, K]`, even where nothing is known."""
    kinds = len(table.labels)
    counts = (table.counts().T @ probabilities).reshape(-1, kinds, kinds).transpose(0, 2, 1)
    total = counts.sum(2, keepdims=True)
    return np.divide(counts, total, out=np.full(counts.shape, 1 / max(kinds, 1)), where=total > 0)


def aggregation(
    method: AggregationMethod,
    table: LabelTable,
    probabilities: NDArray[np.float64],
    confusion: NDArray[np.float64],
    priors: NDArray[np.float64],
    **fields: Any,
) -> Aggregation:
    """Result by names.

    Args:
        method: Its name.
        table: The answers.
        probabilities: `[T, K]`.
        confusion: `[A, K, K]` true label, given label.
        priors: `[K]` share of each label.
        fields: Further ones of `Aggregation`.
    """
    names = table.labels
    best = (probabilities >= probabilities.max(1, keepdims=True) - EQUAL).argmax(1) if len(table.tasks) else []
    skills = np.einsum("k,akk->a", priors, confusion)

    def by_label(row: list[Any]) -> dict[Hashable, Any]:
        return dict(zip(names, row, strict=True))

    return Aggregation(
        method,
        {task: names[n] for task, n in zip(table.tasks, best, strict=True)},
        dict(zip(table.tasks, map(by_label, probabilities.tolist()), strict=True)),
        dict(zip(table.annotators, skills.tolist(), strict=True)),
        {
            a: by_label([by_label(row) for row in rows])
            for a, rows in zip(table.annotators, confusion.tolist(), strict=True)
        },
        by_label(priors.tolist()),
        dict(
            zip(table.annotators, np.bincount(table.annotator, minlength=len(table.annotators)).tolist(), strict=True)
        ),
        **fields,
    )
