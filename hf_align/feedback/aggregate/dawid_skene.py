"""Labels of annotators with unknown error rates: Dawid and Skene's model, estimated by expectation-maximization.

Each task has one true label j, drawn with probability p[j]; annotator a gives label k to it with probability
confusion[a, j, k], independently of the others (Dawid and Skene, Maximum Likelihood Estimation of Observer Error-Rates
Using the EM Algorithm, 1979). Two steps alternate:

    M: confusion[a, j, k] ~ pseudo[a, j, k] + sum over the tasks t that a labeled k of P(t is j),  p[j] = mean P(t is j)
    E: P(t is j) ~ p[j] * product over the labels (a, k) of t of confusion[a, j, k]

Gold tasks are pinned to what is known in every E step. Pseudo-counts are the annotator's track record and a smoothing
that all annotators get; they act in every M step, as a Dirichlet prior whose mode is sought. What is maximised,

    sum over t of log sum over j of p[j] * product of confusion + sum of pseudo * log confusion,

never falls from one iteration to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from hf_align.errors import UserError
from hf_align.feedback.aggregate.labels import Labels, LabelTable, read_labels
from hf_align.feedback.aggregate.votes import Aggregation, aggregation

Errors = Literal["full", "one_coin"]
SMOOTHING = (2.0, 1.0)
"""Right and wrong labels that every annotator is taken to have given before."""
_FLOOR = 1e-10
"""Least expected count: a label never seen is improbable, not impossible."""


def dawid_skene(
    answers: Labels,
    gold: Mapping[Any, Any] | None = None,
    *,
    prior: Mapping[Any, tuple[float, float]] | None = None,
    errors: Errors = "full",
    mirror: Mapping[Any, Any] | None = None,
    smoothing: tuple[float, float] = SMOOTHING,
    start: Aggregation | None = None,
    tolerance: float = 1e-7,
    max_iterations: int = 500,
) -> Aggregation:
    """Estimate the true labels and how often each annotator is right.

    Args:
        answers: Triples (task, annotator, label), dicts or columns of these names; labels of any hashable type.
        gold: Known label by task; pinned.
        prior: Track record by annotator: earlier labels that were right, and wrong. Spread evenly over true labels, and
            the wrong ones over wrong labels.
        errors: "full": every pair of true and given label has its own probability. "one_coin": an annotator is right
            with one probability for every true label, and all wrong labels are equally probable.
        mirror: For symmetric labels: the label that each becomes when the task is turned round, such as {"first":
            "second", "second": "first", "tie": "tie"} where two responses stand in random order. Mirrored errors are
            then equally probable, and mirrored labels equally frequent: half of the parameters.
        smoothing: Right and wrong labels added to every annotator's record. (0, 0): maximum likelihood.
        start: Earlier result from whose probabilities to start. Default: with gold or track records what they say of
            the annotators, else shares of votes.
        tolerance: Ends when an iteration gains less than this per answer.
        max_iterations: Most iterations.

    Returns:
        Posterior probabilities, and confusion matrices at the mode; `skills` are the expected share of right labels.

    Raises:
        UserError: A label is missing, not hashable or of mixed types, or an argument is out of range.

    Example:
        >>> from hf_align.feedback import dawid_skene
        >>> answers = [(task, name, task % 2) for task in range(20) for name in ("anna", "ben")]
        >>> answers += [(task, "spammer", 0) for task in range(20)]
        >>> result = dawid_skene(answers)
        >>> result.labels[3], result.skills["anna"] > 0.8 > result.skills["spammer"]
        (1, True)
    """
    _check(errors, prior, smoothing, tolerance, max_iterations)
    table = read_labels(answers, gold, labels=mirror or ())
    model = _Model(table, errors, mirror, prior or {}, smoothing)
    if start is not None:
        probabilities = _named(start, table)
    elif gold or prior:
        probabilities = model.from_records(prior or {})
    else:
        probabilities = table.shares()
    history: list[float] = []
    converged = False
    for _ in range(max_iterations):
        probabilities, objective = model.expect(model.maximise(probabilities))
        history.append(objective)
        if len(history) > 1 and objective - history[-2] < tolerance * len(table.task):
            converged = True
            break
    estimate = model.maximise(probabilities)
    return aggregation(
        "dawid_skene",
        table,
        probabilities,
        estimate.confusion,
        estimate.priors,
        iterations=len(history),
        objective=tuple(history),
        converged=converged,
    )


def _check(
    errors: Errors,
    prior: Mapping[Any, tuple[float, float]] | None,
    smoothing: tuple[float, float],
    tolerance: float,
    max_iterations: int,
) -> None:
    if errors not in get_args(Errors):
        raise UserError(f"errors is {errors!r}; use one of {', '.join(get_args(Errors))}")
    records = {"smoothing": smoothing, **{f"prior of {name!r}": record for name, record in (prior or {}).items()}}
    for name, record in records.items():
        if len(record) != 2 or not all(0 <= count < float("inf") for count in record):
            raise UserError(f"{name} is {record!r}: give the numbers of right and of wrong labels")
    if max_iterations < 1:
        raise UserError(f"max_iterations is {max_iterations}: at least 1")


@dataclass(frozen=True)
class _Estimate:
    """Parameters: `confusion` `[A, K, K]` (true, given) and `priors` `[K]`."""

    confusion: NDArray[np.float64]
    priors: NDArray[np.float64]


class _Model:
    """The two steps, on sparse counts.

    Args:
        table: The labels.
        errors: See `dawid_skene`.
        mirror: See `dawid_skene`.
        prior: See `dawid_skene`.
        smoothing: See `dawid_skene`.
    """

    def __init__(
        self,
        table: LabelTable,
        errors: Errors,
        mirror: Mapping[Any, Any] | None,
        prior: Mapping[Any, tuple[float, float]],
        smoothing: tuple[float, float],
    ) -> None:
        self.table, self.errors = table, errors
        self.counts = table.counts()  # [T, A * K]
        self.kinds = len(table.labels)
        # A gold task that nobody answered says nothing of how frequent labels are.
        self.asked = np.bincount(table.task, minlength=len(table.tasks)) > 0
        self.turned = None if mirror is None else _permutation(table.labels, mirror)
        records = np.array([prior.get(name, (0.0, 0.0)) for name in table.annotators]) + smoothing  # [A, 2]
        self.pseudo = self._spread(records)

    def _spread(self, records: NDArray[np.float64]) -> NDArray[np.float64]:
        """Right and wrong labels `[A, 2]` as counts `[A, K, K]`, even over true labels."""
        right, wrong = records.T[:, :, None, None] / self.kinds
        same = np.eye(self.kinds)
        return right * same + wrong / max(self.kinds - 1, 1) * (1 - same)

    def from_records(self, prior: Mapping[Any, tuple[float, float]]) -> NDArray[np.float64]:
        """Probabilities `[T, K]` by what gold and track records alone say of the annotators."""
        table = self.table
        known = np.zeros((len(table.tasks), self.kinds))
        table.pin(known)
        records = np.array([prior.get(name, (0.0, 0.0)) for name in table.annotators]) + SMOOTHING
        confusion = self._normalise(self._expected(known) + self._spread(records))
        return self.expect(_Estimate(confusion, np.full(self.kinds, 1 / self.kinds)))[0]

    def _expected(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Counts `[A, K, K]` of true and given labels under probabilities `[T, K]`."""
        counts = self.counts.T @ probabilities  # [A * K, K]
        return counts.reshape(-1, self.kinds, self.kinds).transpose(0, 2, 1)

    def _normalise(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Confusion that maximises sum of counts * log confusion under the symmetries.

        Under a group of symmetries the counts' mean over the group takes their place.
        """
        if self.errors == "one_coin" and self.kinds > 1:  # all permutations of labels
            right = np.einsum("ajj->a", counts)
            counts = self._spread(np.stack([right, counts.sum((1, 2)) - right], axis=1))
        elif self.turned is not None:
            counts = (counts + counts[:, self.turned][:, :, self.turned]) / 2
        counts = np.maximum(counts, _FLOOR)
        return counts / counts.sum(2, keepdims=True)

    def maximise(self, probabilities: NDArray[np.float64]) -> _Estimate:
        """The M step: parameters for probabilities `[T, K]`."""
        priors = probabilities[self.asked].mean(0)
        if self.turned is not None:
            priors = (priors + priors[self.turned]) / 2
        return _Estimate(self._normalise(self._expected(probabilities) + self.pseudo), priors)

    def expect(self, estimate: _Estimate) -> tuple[NDArray[np.float64], float]:
        """The E step: probabilities `[T, K]`, and the objective at the parameters."""
        log_confusion = np.log(estimate.confusion)
        by_label = log_confusion.transpose(0, 2, 1).reshape(-1, self.kinds)  # [A * K, K]
        joint = self.counts @ by_label + np.log(np.maximum(estimate.priors, _FLOOR))  # [T, K]
        evidence = logsumexp(joint, axis=1, keepdims=True)
        probabilities = np.exp(joint - evidence)
        (known,) = np.nonzero(self.table.gold >= 0)
        evidence[known, 0] = joint[known, self.table.gold[known]]
        objective = float(evidence[self.asked].sum() + (self.pseudo * log_confusion).sum())
        return self.table.pin(probabilities), objective


def _permutation(labels: list[Any], mirror: Mapping[Any, Any]) -> NDArray[np.intp]:
    """Number of each label's mirror image."""
    number = {label: n for n, label in enumerate(labels)}
    for label in labels:
        if label not in mirror or mirror.get(mirror[label]) != label:
            raise UserError(f"mirror doesn't turn label {label!r} into another and back: give both directions")
    return np.array([number[mirror[label]] for label in labels], dtype=np.intp)


def _named(start: Aggregation, table: LabelTable) -> NDArray[np.float64]:
    """Probabilities `[T, K]` of an earlier result; shares of votes for tasks that it lacks."""
    probabilities = table.shares()
    for n, task in enumerate(table.tasks):
        if task in start.probabilities:
            row = np.array([start.probabilities[task].get(label, 0.0) for label in table.labels])
            probabilities[n] = row / row.sum() if row.sum() > 0 else probabilities[n]
    return table.pin(probabilities)
