"""Labels that annotators gave to tasks, read into one sparse table of counts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hf_align.errors import UserError

COLUMNS = ("task", "annotator", "label")
Labels = Iterable[tuple[Any, Any, Any] | Mapping[str, Any]] | Mapping[str, Any]
"""Triples (task, annotator, label), dicts with these keys, or columns of these names (a mapping, a data frame)."""


@dataclass(frozen=True)
class LabelTable:
    """N labels of A annotators on T tasks, of K kinds.

    Attributes:
        task: `[N]` number of the task of each.
        annotator: `[N]` number of its annotator.
        label: `[N]` number of its label.
        tasks: The tasks, in the order of their first label; then those that only `gold` names.
        annotators: The annotators, in the order of their first label.
        labels: The labels, sorted where they can be, else in the order they came.
        gold: `[T]` number of the label that is known, -1 for none.
    """

    task: NDArray[np.intp]
    annotator: NDArray[np.intp]
    label: NDArray[np.intp]
    tasks: list[Hashable]
    annotators: list[Hashable]
    labels: list[Any]
    gold: NDArray[np.intp]

    def counts(self, weights: NDArray[np.float64] | None = None) -> csr_array:
        """`[T, A * K]` how often each annotator gave each label to each task, or the sum of weights `[N]`."""
        cells = self.annotator * len(self.labels) + self.label
        weights = np.ones(len(cells)) if weights is None else weights
        shape = (len(self.tasks), len(self.annotators) * len(self.labels))
        return csr_array((weights, (self.task, cells)), shape=shape)

    def shares(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """`[T, K]` share of each label among a task's, weighted by `[N]`; gold is 1, tasks without labels are even."""
        kinds = len(self.labels)
        votes = np.bincount(self.task * kinds + self.label, weights, len(self.tasks) * kinds).reshape(-1, kinds)
        total = votes.sum(1, keepdims=True)
        shares = np.divide(votes, total, out=np.full(votes.shape, 1 / kinds), where=total > 0)
        return self.pin(shares)

    def pin(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Set the rows `[T, K]` of gold tasks to what is known, in place."""
        (known,) = np.nonzero(self.gold >= 0)
        probabilities[known] = 0
        probabilities[known, self.gold[known]] = 1
        return probabilities


def read_labels(answers: Labels, gold: Mapping[Any, Any] | None = None, labels: Iterable[Any] = ()) -> LabelTable:
    """Read answers.

    Args:
        answers: See `Labels`. Labels, tasks and annotators are of any hashable type.
        gold: Known label by task.
        labels: Further labels that there can be.

    Raises:
        UserError: A label, task or annotator is None, NaN or not hashable, labels mix booleans and numbers, or there is
            no answer.
    """
    rows = _rows(answers)
    names: dict[str, dict[Any, int]] = {name: {} for name in ("task", "annotator")}
    numbers: dict[str, list[int]] = {name: [] for name in names}
    given = []
    for n, row in enumerate(rows):
        place = f"answer {n}"
        if len(row) != len(COLUMNS):
            raise UserError(f"{place} is {row!r}: give a triple (task, annotator, label)")
        for name, value in zip(names, row, strict=False):
            value = _plain(value, f"{place}: {name}")
            numbers[name].append(names[name].setdefault(value, len(names[name])))
        given.append(_plain(row[2], f"{place} (task {row[0]!r}, annotator {row[1]!r}): label"))
    known = {
        _plain(task, "gold: task"): _plain(label, f"gold of task {task!r}") for task, label in (gold or {}).items()
    }
    for task in known:
        names["task"].setdefault(task, len(names["task"]))
    if not given:
        raise UserError("answers are empty: give at least one")
    kinds = _order([*given, *known.values(), *(_plain(label, "labels: one") for label in labels)])
    of_label = {label: n for n, label in enumerate(kinds)}
    numbers["label"] = [of_label[label] for label in given]
    task, annotator, label = (np.array(column, dtype=np.intp) for column in numbers.values())
    pinned = np.array([of_label[known[task]] if task in known else -1 for task in names["task"]], dtype=np.intp)
    return LabelTable(task, annotator, label, list(names["task"]), list(names["annotator"]), kinds, pinned)


def _rows(answers: Labels) -> Iterable[tuple[Any, ...]]:
    if isinstance(answers, Mapping) or (hasattr(answers, "columns") and not isinstance(answers, list | tuple)):
        table: Any = answers
        if missing := [name for name in COLUMNS if name not in table]:
            raise UserError(f"answers have no column {missing[0]!r}: give the columns task, annotator and label")
        columns = [list(table[name]) for name in COLUMNS]
        lengths = {name: len(column) for name, column in zip(COLUMNS, columns, strict=True)}
        if len(set(lengths.values())) > 1:
            raise UserError(f"the columns of answers differ in length: {lengths}")
        return list(zip(*columns, strict=True))
    rows = []
    for n, row in enumerate(answers):
        if isinstance(row, Mapping):
            if missing := [name for name in COLUMNS if name not in row]:
                raise UserError(f"answer {n} has no {missing[0]!r}: give task, annotator and label")
            row = tuple(row[name] for name in COLUMNS)
        elif isinstance(row, str) or not hasattr(row, "__len__"):
            raise UserError(f"answer {n} is {row!r}: give a triple (task, annotator, label)")
        rows.append(tuple(row))
    return rows


def _plain(value: Any, place: str) -> Any:
    """The value, a numpy scalar as Python's; refused if it is missing or can't be looked up."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        missing = value is None or bool(value != value)  # NaN and NaT differ from themselves
    except (TypeError, ValueError):
        missing = True  # pandas.NA compares to nothing
    if missing:
        raise UserError(f"{place} is {value!r}: leave out answers without one")
    try:
        hash(value)
    except TypeError:
        raise UserError(f"{place} is the {type(value).__name__} {value!r}, which isn't hashable: use a name") from None
    return value


def _order(given: list[Any]) -> list[Any]:
    either = {isinstance(label, bool): label for label in given if isinstance(label, bool | int | float)}
    if len(either) == 2:
        raise UserError(
            f"labels mix booleans and numbers ({either[True]!r} and {either[False]!r}), which count as equal in "
            "Python: use one type"
        )
    labels = list(dict.fromkeys(given))
    try:
        return sorted(labels)
    except TypeError:
        return labels
