"""Columns that score responses: whether they fit the preferences, each other and themselves."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from hf_align.collators.judged import kind_of
from hf_align.data.inspection.findings import Finding, Found, Kind
from hf_align.data.inspection.preferences import Preferences
from hf_align.data.inspection.records import Context, Record
from hf_align.numbers import LARGEST, number_problem
from hf_align.statistics import pearson, wilson_interval

SECTION = "contradictions"
SCORE_CONTRADICTS = Kind(
    "score_contradicts",
    SECTION,
    "warning",
    "Find out which of the two is right: drop the rows, turn them round, or make the pairs of the scores.",
)
SCORE_REVERSED = Kind(
    "score_reversed",
    SECTION,
    "warning",
    "If a lower value is better, rename the column; if not, chosen and rejected are swapped throughout.",
)
SCORES_DISAGREE = Kind(
    "scores_disagree", SECTION, "warning", "Find out which column means what its name says before training on either."
)
SCORE_EXTREME = Kind(
    "score_extreme",
    SECTION,
    "warning",
    "Look for an error of reading or storing, such as a 1 that was written as 10; drop or correct the rows.",
)
MIXED_SCALES = Kind(
    "mixed_scales", SECTION, "warning", "Bring all rows to one scale before pairs or margins are made of the scores."
)
SCORE_VARIES = Kind(
    "score_varies",
    SECTION,
    "note",
    "If scores are of the response alone, average them; if they depend on the rival, don't compare them across rows.",
)
KINDS = (SCORE_CONTRADICTS, SCORE_REVERSED, SCORES_DISAGREE, SCORE_EXTREME, MIXED_SCALES, SCORE_VARIES)

JUDGING = {"score", "scores", "rating", "ratings", "reward", "rewards", "quality", "grade", "grades", "stars", "points"}
"""Words of a column's name that say: higher is better."""
MOST_COLUMNS = 8
"""Most columns that are read; those that judge first."""
RELATED = 0.5
"""Rank correlation from which an extreme in one column is expected to show in the other."""
TAIL = 10
"""Percentage of the responses that count as low, and as high, in the other column."""
RARE = 0.05
"""Extremes that contradict another column in more rows than this share are how the columns are related, no errors."""
FEWEST = 10
"""Fewest values to compare columns."""


@dataclass(frozen=True)
class Column:
    """A score of each response.

    Attributes:
        name: For messages, such as "chosen_score/rejected_score".
        sources: Columns of the chosen and the rejected response's score, or one with a list for all responses.
        judges: Whether its name says that higher is better.
    """

    name: str
    sources: tuple[str, ...]
    judges: bool

    def values(self, record: Record) -> Iterator[float]:
        """The score of each response of a row, a list's mean; NaN where it is no number."""
        if len(self.sources) == 2:
            return (number_in(record.row[source]) for source in self.sources)
        given, kept = record.row[self.sources[0]], getattr(record.read, "kept", ())
        if not isinstance(given, list) or (kept and len(given) <= kept[-1]):
            return (math.nan for _ in kept)
        return (number_in(given[number]) for number in kept)


def score_columns(columns: Iterable[str]) -> list[Column]:
    """Columns that may hold a score of each response, those that judge first.

    Example:
        >>> from hf_align.data.inspection.scores import score_columns
        >>> [column.name for column in score_columns(["chosen", "rejected", "chosen_score", "rejected_score"])]
        ['chosen_score/rejected_score']
    """
    names = list(columns)
    found = []
    if kind_of(names) == "rankings":
        other = ("prompt", "responses", "ranking", "weight", "margin")
        found = [Column(name, (name,), _judges(name)) for name in names if name not in other]
    for name in names:
        for pattern in (r"chosen([-_. ].+)", r"(.+[-_. ])chosen"):
            if match := re.fullmatch(pattern, name):
                rival = f"rejected{match[1]}" if pattern.startswith("chosen") else f"{match[1]}rejected"
                if rival in names:
                    found.append(Column(f"{name}/{rival}", (name, rival), _judges(match[1])))
    return sorted(found, key=lambda column: not column.judges)[:MOST_COLUMNS]


class Scores:
    """Looks for rows whose scores contradict their preference, other columns, or other rows."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._columns = score_columns(context.columns)
        self._values = {column.name: array("f") for column in self._columns}
        self._preferences = Preferences(named=True)
        self._lengths, self._margins = array("i"), array("f")

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        if not self._columns:
            return
        for record in records:
            if record.read is not None:
                self._preferences.add(record)
                self._lengths.extend(map(len, record.responses))
                self._margins.append(number_in(record.row.get("margin")))
                for column in self._columns:
                    self._values[column.name].extend(column.values(record))

    def finish(self) -> Found:
        """Figures of each column, and what contradicts what."""
        found = Found({"scores": {}, "score_correlations": []})
        values = {name: np.frombuffer(each, np.float32).astype(float) for name, each in self._values.items() if each}
        columns = [each for each in self._columns if np.isfinite(values.get(each.name, np.empty(0))).any()]
        for column in columns:
            figures, findings = self._against_preference(column, values[column.name])
            found.metrics["scores"][column.name] = figures
            found.findings += findings
            if column.judges:
                found.findings += [
                    *self._mixed(column, values[column.name]),
                    *self._varying(column, values[column.name]),
                ]
        ranks = {column.name: _ranks(values[column.name]) for column in columns}
        for one, two in combinations(columns, 2):
            rho, responses = _correlation(ranks[one.name], ranks[two.name])
            if responses < FEWEST or math.isnan(rho):
                continue
            found.metrics["score_correlations"].append({"columns": [one.name, two.name], "rho": rho, "n": responses})
            if one.judges and two.judges and _surely_negative(rho, responses):
                message = f"{one.name} and {two.name} rank responses in opposite ways (rank correlation {rho:.2f})."
                found.findings.append(SCORES_DISAGREE.found((), message))
            if rho >= RELATED:
                for judge, other in ((one, two), (two, one)):
                    if judge.judges:
                        found.findings += self._extreme(judge, other, values[judge.name], values[other.name])
        return found

    def _against_preference(self, column: Column, values: NDArray[np.float64]) -> tuple[dict[str, Any], list[Finding]]:
        each = self._preferences
        bad = np.zeros(len(each.rows), bool)
        counts = np.zeros(3, int)  # of pairs: the better one's score lower, equal, higher
        gaps, margins = [], []
        for places, better, worse in each.ordered():
            gap = values[better] - values[worse]
            known = np.isfinite(gap)
            counts += np.bincount(np.sign(gap[known]).astype(int) + 1, minlength=3)
            bad[places[gap < 0]] = True
            if "margin" in self._context.columns:
                gaps.append(gap)
                margins.append(np.frombuffer(self._margins, np.float32)[places])
        against, equal, agree = counts.tolist()
        total = against + equal + agree
        ranks = _ranks(values)
        figures: dict[str, Any] = {
            "pairs": total,
            "agree": agree,
            "against": against,
            "equal": equal,
            "tau": (agree - against) / total if total else None,
            **dict(zip(("min", "median", "max"), np.nanpercentile(values, [0, 50, 100]).tolist(), strict=True)),
            "length_correlation": _correlation(ranks, _ranks(np.frombuffer(self._lengths, np.int32)))[0],
            "margin_correlation": None,
        }
        findings = []
        if margins:
            gap, margin = np.concatenate(gaps), np.concatenate(margins)
            known = np.isfinite(gap) & np.isfinite(margin)
            rho, pairs = _correlation(_ranks(np.where(known, gap, np.nan)), _ranks(np.where(known, margin, np.nan)))
            figures["margin_correlation"] = None if math.isnan(rho) else rho
            if column.judges and pairs >= FEWEST and _surely_negative(rho, pairs):
                message = f"The larger the margin, the smaller the lead in {column.name} (rank correlation {rho:.2f})."
                findings.append(SCORES_DISAGREE.found((), message))
        if column.judges and against:
            findings.append(self._lower_for_better(column, against, against + agree, each.rows[bad].tolist()))
        return figures, findings

    def _lower_for_better(self, column: Column, against: int, decided: int, rows: list[int]) -> Finding:
        """What is wrong where the better response has the lower score: the column's direction, or some rows.

        Args:
            column: The column.
            against: Number of pairs of which that is true.
            decided: Number of pairs whose scores differ.
            rows: The rows with such a pair.
        """
        share = against / decided
        if decided >= FEWEST and wilson_interval(share, decided)[0] > 0.5:
            message = f"{column.name} is lower for the better response in {against:,} of {decided:,} pairs."
            return SCORE_REVERSED.found((), message)
        message = (
            f"{_rows(len(rows))} a response with a lower {column.name} as the better one "
            f"({share:.1%} of {decided:,} pairs whose scores differ)."
        )
        return SCORE_CONTRADICTS.found(rows, message, example=self._scores_of(column, rows[0]))

    def _scores_of(self, column: Column, row: int) -> str:
        given = self._context.fetch([row])[0].row
        return "; ".join(f"{source}: {given[source]}" for source in column.sources)

    def _extreme(
        self, judge: Column, other: Column, values: NDArray[np.float64], others: NDArray[np.float64]
    ) -> list[Finding]:
        """Rows with the highest score of all where the other column is among the lowest, or the reverse."""
        low, high = np.nanpercentile(others, [TAIL, 100 - TAIL])
        top = (values == np.nanmax(values)) & (others <= low) & (others < high)
        bottom = (values == np.nanmin(values)) & (others >= high) & (others > low)
        rows = self._rows_of(top | bottom)
        if not rows or len(rows) > RARE * len(self._preferences.rows):
            return []
        message = f"{_rows(len(rows))} an extreme of {judge.name} where {other.name} is at the other end."
        example = f"{self._scores_of(judge, rows[0])}; {self._scores_of(other, rows[0])}"
        return [SCORE_EXTREME.found(rows, message, example=example)]

    def _mixed(self, column: Column, values: NDArray[np.float64]) -> list[Finding]:
        """Rows whose scores are on another scale than those of most rows."""
        counts = self._preferences.counts.astype(np.intp)
        start = np.cumsum(counts) - counts
        highest = np.fmax.reduceat(values, start)
        odd, scale = off_scale(values, highest)
        if not odd.any():
            return []
        rows = self._preferences.rows[odd].tolist()
        message = f"{_rows(len(rows))} scores in {column.name} that are {scale}, so two scales are mixed."
        return [MIXED_SCALES.found(rows, message, example=self._scores_of(column, rows[0]))]

    def _varying(self, column: Column, values: NDArray[np.float64]) -> list[Finding]:
        """Rows of responses that have another score elsewhere."""
        known = np.flatnonzero(np.isfinite(values))
        _, node, times = np.unique(self._preferences.nodes[known], return_inverse=True, return_counts=True)
        order = np.argsort(node, kind="stable")
        start = np.cumsum(times) - times
        highest, lowest = (each.reduceat(values[known][order], start) for each in (np.maximum, np.minimum))
        varying = highest > lowest
        if not varying.any():
            return []
        marked = np.zeros(len(values), bool)
        marked[known] = varying[node]
        several, differ = (times > 1).sum(), varying.sum()
        message = f"{differ:,} of {several:,} responses that stand in several rows don't have one {column.name} in all."
        rows = self._rows_of(marked)
        return [SCORE_VARIES.found(rows, message, example=self._scores_of(column, rows[0]))]

    def _rows_of(self, marked: NDArray[np.bool_]) -> list[int]:
        """Numbers of the rows with a marked response."""
        counts = self._preferences.counts.astype(np.intp)
        return self._preferences.rows[np.logical_or.reduceat(marked, np.cumsum(counts) - counts)].tolist()


def number_in(value: Any) -> float:
    """A number, or the mean of a list's numbers; NaN for anything else."""
    if isinstance(value, list):
        if value and set(map(type, value)) <= {int, float} and max(map(abs, value)) <= LARGEST:
            mean = fmean(value)  # the usual case, ten times as fast as asking each number
            if not math.isnan(mean):
                return mean
        numbers = [float(each) for each in value if number_problem(each) is None]
        return fmean(numbers) if numbers else math.nan
    return math.nan if value is None or number_problem(value) else float(value)


def off_scale(values: NDArray[np.float64], highest: NDArray[np.float64]) -> tuple[NDArray[np.bool_], str]:
    """Rows on another scale than most: fractions below 1 among whole or half points, or far above the others' end.

    Far above: at least 80% of the rows end at 1, 5 or 10 and reach .7 of it, while the others lie three times as often
    from twice to 20 times that end as just above it. A long tail, such as that of upvotes, is no second scale.

    Args:
        values: `[N]` scores.
        highest: `[R]` highest score of each row.

    Returns:
        `[R]` whether a row is off, and how, worded to follow "scores that are".
    """
    nobody = np.zeros(len(highest), bool)
    finite = values[np.isfinite(values)]
    if len(finite) < FEWEST or finite.min() < 0:
        return nobody, ""
    above = finite[finite >= 1]
    if 2 * len(above) > len(finite) and np.median(above) >= 3 and (above * 2 == np.round(above * 2)).mean() >= 0.95:
        fractions = (highest < 1) & (highest * 2 != np.round(highest * 2))
        if fractions.any():
            return fractions, "fractions below 1 among points from 1"
    for end in (1.0, 5.0, 10.0):
        inside = highest <= end
        over = finite[finite > end]
        far = ((over > 2 * end) & (over <= 20 * end)).sum()
        if (
            len(over)
            and inside.sum() >= 0.8 * np.isfinite(highest).sum()
            and np.percentile(highest[inside], 95) >= 0.7 * end
            and far >= 3 * (over <= 2 * end).sum()
        ):
            return highest > end, f"above {end:g}, where most rows end"
    return nobody, ""


def _judges(name: str) -> bool:
    return not JUDGING.isdisjoint(re.split(r"[-_. ]", name.lower()))


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Rank of each value among all, NaN for NaN."""
    return rankdata(values, nan_policy="omit")


def _correlation(one: NDArray[np.float64], two: NDArray[np.float64]) -> tuple[float, int]:
    """Correlation of ranks where both are known, and how many are; NaN where a side is constant."""
    known = np.isfinite(one) & np.isfinite(two)
    if known.sum() < 2 or np.ptp(one[known]) == 0 or np.ptp(two[known]) == 0:
        return math.nan, int(known.sum())
    if not known.all():
        one, two = rankdata(one[known]), rankdata(two[known])
    return float(pearson(one, two)), int(known.sum())


def _surely_negative(rho: float, n: int) -> bool:
    """Whether a rank correlation's 95% interval (Bonett and Wright, 2000) lies below 0."""
    return math.atanh(min(max(rho, -0.999), 0.999)) + 1.96 * math.sqrt((1 + rho**2 / 2) / max(n - 3, 1)) < 0


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count:,} rows have"
