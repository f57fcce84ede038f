"""How far raters agree: Krippendorff's alpha with its interval, raw agreement, and the reason where alpha is undefined.

    alpha = 1 - observed / expected

`observed` is the mean distance of two values of one unit, `expected` that of two values of any units: 1 is perfect
agreement, 0 is what drawing values from a hat gives, below 0 is disagreement by system. Distances are those of the
level of measurement (Krippendorff, Content Analysis, 4th edition 2018, chapter 12): nominal 1 for different values;
interval (x - y)^2; ratio ((x - y) / (x + y))^2; ordinal the squared number of values between two ranks, which is
the interval distance of mid-ranks. A value counts 1 / (m - 1) with each of the other m - 1 of its unit, so that a unit
weighs as many values as it has; a unit with a single value is left out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hf_align.data.answers import Answers, Level, Table, read_answers
from hf_align.errors import UserError
from hf_align.statistics import Interval, Resampling

BUCKETS = 5000
"""Above this number of units, the bootstrap draws random bundles of units."""
SKEWED = 0.9
"""Share of the commonest value from which a low alpha beside a high raw agreement is explained."""
_CELLS = 4_000_000
"""Numbers held at once."""
_UNDEFINED = float("nan")


class UndefinedAgreement(UserWarning):
    """Alpha is undefined for a table; the message says why, and gives the raw agreement.

    Example:
        >>> import warnings
        >>> from hf_align.feedback import UndefinedAgreement, krippendorff_alpha
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", UndefinedAgreement)
        ...     try:
        ...         krippendorff_alpha([[1, 1], [1, 1]])
        ...     except UndefinedAgreement as warning:
        ...         print(str(warning)[:41])
        alpha is undefined: all 4 values that can
    """


@dataclass(frozen=True)
class OfAnnotator:
    """One annotator against all others.

    Attributes:
        alpha: 1 - (mean distance of the annotator's values from the others' of the same unit) / expected, with the
            distance expected in the whole table. The mean over annotators, weighted by `values`, is the table's alpha.
        error: Standard error of this alpha, the annotator's units taken as drawn at random.
        raw: Share of the others' values that are the same as the annotator's.
        values: The annotator's values in units that others rated, too.
    """

    alpha: float
    error: float
    raw: float
    values: int


@dataclass(frozen=True)
class Agreement:
    """Agreement of several raters.

    Attributes:
        level: Level of measurement of alpha.
        alpha: Krippendorff's alpha; NaN where it is undefined.
        interval: 95% bootstrap interval of alpha, units resampled; NaN where it is undefined.
        raw: Share of pairs of values of one unit that are the same, units weighted as in alpha; NaN without pairs.
        units: Units with two values or more.
        values: Values in these units.
        single: Units with one value, which say nothing.
        largest: Share of the commonest value.
        reason: One sentence that says why alpha is undefined; "" where it is defined.
        annotators: By annotator, where they are known.
        groups: Agreement within each group of units, where groups are given.

    Example:
        >>> from hf_align.feedback import measure_agreement
        >>> result = measure_agreement({"a": [1, 1, 1], "b": [0, 0, 1], "c": [0, 0]}, "nominal")
        >>> round(result.alpha, 3), round(result.raw, 3)
        (0.562, 0.75)
    """

    level: Level
    alpha: float
    interval: Interval
    raw: float
    units: int
    values: int
    single: int
    largest: float
    reason: str = ""
    annotators: Mapping[Hashable, OfAnnotator] = field(default_factory=dict)
    groups: Mapping[Hashable, Agreement] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The figures, or the reason why alpha is undefined, with the raw agreement."""
        raw = "" if math.isnan(self.raw) else f"; raw agreement is {self.raw:.3f}"
        if self.reason:
            return f"alpha is undefined: {self.reason}{raw}"
        low, high = self.interval
        between = "" if math.isnan(low) else f" ({low:.3f} to {high:.3f})"
        skewed = (
            f"; {self.largest:.0%} of the values are the same, so that chance alone agrees that often, and a low alpha "
            "beside a high raw agreement is right"
            if self.largest >= SKEWED
            else ""
        )
        return f"{self.level} alpha is {self.alpha:.3f}{between} on {self.units:,} units{raw}{skewed}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: NaN is None."""
        return _plain({**asdict(self), "sentence": self.sentence})


def krippendorff_alpha(table: Table, level: Level = "nominal") -> float:
    """Krippendorff's alpha of a table of ratings.

    Args:
        table: Raters x units: a 2-D array or list of lists, with None or NaN for gaps. Where raters are unknown, a
            mapping from each unit to its list of values.
        level: "nominal" (names; default), "ordinal" (ranks), "interval" (numbers with equal steps) or "ratio" (numbers
            from 0).

    Returns:
        Alpha, at most 1. NaN where it is undefined: no unit has two values, there is one rater or one unit, or all
        values are the same. A warning (`UndefinedAgreement`) then says which, with the raw agreement; in
        `measure_agreement` this is part of the result.

    Raises:
        UserError: if the level is unknown, or the table isn't one, is ragged or has values that don't fit the level.

    Example:
        >>> from hf_align.feedback import krippendorff_alpha
        >>> round(krippendorff_alpha([[1, 2, 3, None], [1, 2, 4, 4], [1, 2, 3, 4]], level="interval"), 3)
        0.938
    """
    answers = read_answers(table, level)
    found = agreement_of(answers, level, resamples=0)
    if found.reason:
        warnings.warn(found.sentence, UndefinedAgreement, stacklevel=2)
    return found.alpha


def measure_agreement(
    table: Table,
    level: Level = "nominal",
    *,
    annotators: Sequence[Hashable] | None = None,
    groups: Sequence[Hashable] | Mapping[Any, Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Alpha with its bootstrap interval, raw agreement, and both by annotator and by group of units.

    Args:
        table: As for `krippendorff_alpha`; a mapping from each unit to a mapping from annotators to values, too.
        level: As for `krippendorff_alpha`.
        annotators: Names of a table's rows. Default: their numbers.
        groups: Group of each unit: one label for each column of a table, or a mapping from units.
        resamples: Bootstrap resamples; 0 for no interval.
        seed: Seed of the resampling.

    Returns:
        The figures; where alpha is undefined, NaN and the reason.

    Raises:
        UserError: as `krippendorff_alpha`, and if names or groups don't fit the table.
    """
    answers = read_answers(table, level)
    names = answers.raters
    if annotators is not None:
        if len(annotators) != len(names) or isinstance(table, Mapping):
            raise UserError(f"annotators has {len(annotators)} names; give one for each row of a table")
        answers = Answers(answers.values, answers.unit, answers.rater, answers.units, annotators)
    labels = None
    if groups is not None:
        by_unit: Mapping[Any, Hashable] = groups if isinstance(groups, Mapping) else dict(enumerate(groups))
        if missing := [unit for unit in answers.units if unit not in by_unit]:
            raise UserError(f"groups has no label for unit {missing[0]!r}: give one for each unit")
        labels = [by_unit[unit] for unit in answers.units]
    return agreement_of(answers, level, groups=labels, resamples=resamples, seed=seed)


def agreement_of(
    answers: Answers,
    level: Level,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """`measure_agreement` of values that are read: `groups` has a label for each of `answers.units`."""
    pairs = _Pairs(answers, level)
    reason = _why_undefined(answers, pairs)
    observed, expected = pairs.distances.mean() if pairs.values else _UNDEFINED, pairs.expected
    alpha = _UNDEFINED if reason else float(1 - observed / expected)
    interval = [_UNDEFINED, _UNDEFINED] if reason or not resamples else pairs.interval(resamples, seed)
    parts: dict[Hashable, Agreement] = {}
    if groups is not None:
        number = {label: n for n, label in enumerate(dict.fromkeys(groups))}
        of_unit = np.array([number[label] for label in groups], dtype=np.intp)
        for label, n in number.items():
            part = answers.of(of_unit[answers.unit] == n)
            parts[label] = agreement_of(part, level, resamples=resamples, seed=seed)
    return Agreement(
        level,
        alpha,
        interval,
        float(pairs.same.mean()) if pairs.values else _UNDEFINED,
        len(pairs.sizes),
        pairs.values,
        pairs.single,
        float(pairs.counts.sum(axis=0).max() / pairs.values) if pairs.values else _UNDEFINED,
        reason,
        _by_annotator(answers, pairs, expected),
        parts,
    )


class _Pairs:
    """Units with two values or more, prepared for distances of a level.

    Attributes:
        of: `[N]` which of the answers are in such units.
        unit: `[M]` unit of each of these values.
        code: `[M]` number of its value.
        distinct: `[V]` the values.
        sizes: `[U]` values of each unit.
        counts: `[U, V]` how often each unit has each value, sparse.
        same: `[M]` share of the unit's other values that are the same.
        distances: `[M]` mean distance from the unit's other values.
        single: Number of units with one value.
    """

    def __init__(self, answers: Answers, level: Level) -> None:
        self.level = level
        given = np.bincount(answers.unit, minlength=1)
        self.single = int((given == 1).sum())
        self.of = given[answers.unit] > 1
        self.distinct, self.code = np.unique(answers.values[self.of], return_inverse=True)
        _, self.unit = np.unique(answers.unit[self.of], return_inverse=True)
        self.values = len(self.code)
        self.sizes = np.bincount(self.unit).astype(float)
        shape = (len(self.sizes), len(self.distinct))
        cells, of_cell, often = np.unique(
            self.unit * max(shape[1], 1) + self.code, return_inverse=True, return_counts=True
        )
        place = (cells // max(shape[1], 1), cells % max(shape[1], 1))
        self.counts = csr_array((often.astype(float), place), shape=shape)
        others = self.sizes[self.unit] - 1
        self.same = (often[of_cell] - 1) / others
        self.distances = self._distances(others)

    def _distances(self, others: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.level == "nominal" or not self.values:
            return 1 - self.same
        if self.level == "ratio":
            sums = np.empty(self.values)
            for columns, ratio in self._ratios():  # distances of every value from some of them
                inside = (self.code >= columns.start) & (self.code < columns.stop)
                for part in np.array_split(np.flatnonzero(inside), 1 + inside.sum() * len(self.distinct) // _CELLS):
                    near = ratio[:, self.code[part] - columns.start].T
                    sums[part] = (self.counts[self.unit[part]].multiply(near)).sum(axis=1)
            return sums / others
        places = self.places(np.asarray(self.counts.sum(axis=0))[None])[0][self.code]
        means = np.bincount(self.unit, places) / self.sizes
        spread = np.bincount(self.unit, (places - means[self.unit]) ** 2)
        return (self.sizes[self.unit] * (places - means[self.unit]) ** 2 + spread[self.unit]) / others

    def places(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where the values lie, `[R, V]`, such that squared differences are distances; totals `[R, V]`."""
        if self.level == "ordinal":
            return totals.cumsum(axis=1) - totals / 2 - totals.sum(axis=1, keepdims=True) / 2
        return np.broadcast_to(self.distinct - self.distinct.mean(), totals.shape)  # centred: no digits are lost

    @cached_property
    def expected(self) -> float:
        """Mean distance of two values of any units."""
        return float(self._expected(np.asarray(self.counts.sum(axis=0))[None])[0]) if self.values else _UNDEFINED

    def _expected(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        n = totals.sum(axis=1)
        if self.level == "nominal":
            sums = n * n - (totals * totals).sum(axis=1)
        elif self.level == "ratio":
            sums = np.zeros(len(n))
            for columns, ratio in self._ratios():
                sums += ((totals @ ratio) * totals[:, columns]).sum(axis=1)
        else:
            places = self.places(totals)
            means = (totals * places).sum(axis=1, keepdims=True) / n[:, None]
            sums = 2 * n * (totals * (places - means) ** 2).sum(axis=1)
        return sums / (n * (n - 1))

    def _ratios(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Distances of level ratio, `[V, some]`, with the slice of values they belong to."""
        step = max(1, _CELLS // max(len(self.distinct), 1))
        for start in range(0, len(self.distinct), step):
            columns = slice(start, min(start + step, len(self.distinct)))
            other = self.distinct[columns]
            total = self.distinct[:, None] + other
            yield columns, ((self.distinct[:, None] - other) / np.where(total, total, 1.0)) ** 2  # 0 and 0: 0

    def interval(self, resamples: int, seed: int) -> Interval:
        """Bootstrap interval of alpha, over units."""
        within, sizes, counts = np.bincount(self.unit, self.distances), self.sizes, self.counts
        if len(sizes) > BUCKETS and self.level != "ordinal":
            # Sums over random bundles of units have the variance of sums over units, and there are fewer of them.
            units = len(sizes)
            bundle = np.random.default_rng(seed).permutation(units) % BUCKETS
            merge = csr_array((np.ones(units), (bundle, np.arange(units))), shape=(BUCKETS, units))
            within, sizes, counts = merge @ within, merge @ sizes, merge @ counts
        resampling = Resampling(len(sizes), resamples=resamples, seed=seed)
        step = max(1, _CELLS // max(len(sizes), len(self.distinct)))
        alphas: list[NDArray[np.float64]] = []
        for start in range(0, resamples, step):
            drawn = resampling.counts[:, start : start + step].T.astype(float)
            totals = (counts.T @ drawn.T).T
            if self.level == "ordinal":  # ranks are those of the resample
                places = self.places(totals)
                squares, sums = (counts @ (places**2).T).T, (counts @ places.T).T
                observed = (drawn * 2 * (sizes * squares - sums**2) / (sizes - 1)).sum(axis=1)
            else:
                observed = drawn @ within
            with np.errstate(invalid="ignore", divide="ignore"):  # a resample of one value only
                alphas.append(1 - observed / (drawn @ sizes) / self._expected(totals))
        return resampling.interval(np.concatenate(alphas))


def _why_undefined(answers: Answers, pairs: _Pairs) -> str:
    raters = None if answers.rater is None else len(np.unique(answers.rater))
    if not len(answers.values):
        return "there are no values"
    if raters == 1:
        return "there is only one rater, and agreement is between raters"
    if not pairs.values:
        return "no unit has two values, so that nothing can be compared"
    if len(pairs.distinct) == 1:
        return f"all {pairs.values} values that can be compared are the same, so that chance can't disagree either"
    if len(pairs.sizes) == 1:
        return "only one unit has two values or more, and alpha of a single unit is 0 whatever they are"
    return ""


def _by_annotator(answers: Answers, pairs: _Pairs, expected: float) -> dict[Hashable, OfAnnotator]:
    if answers.rater is None or not pairs.values:
        return {}
    rater, count = answers.rater[pairs.of], len(answers.raters)
    values = np.bincount(rater, minlength=count)
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing comparable, or nothing to disagree about
        means = np.bincount(rater, pairs.distances, minlength=count) / values
        squares = np.bincount(rater, (pairs.distances - means[rater]) ** 2, minlength=count)
        errors = np.sqrt(squares / (values - 1.0) / values) / expected
        same = np.bincount(rater, pairs.same, minlength=count) / values
        alphas = 1 - means / expected
    rows = zip(answers.raters, alphas.tolist(), errors.tolist(), same.tolist(), values.tolist(), strict=True)
    return {name: OfAnnotator(*figures) for name, *figures in rows}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
