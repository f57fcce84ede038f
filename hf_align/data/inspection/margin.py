"""How much better the better response of a row is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hf_align.collators.rankings import Ranking
from hf_align.data.inspection.preferences import ranks_in
from hf_align.data.inspection.records import Record
from hf_align.data.inspection.scores import Column, number_in, score_columns


class Margin:
    """How much better a row's better response is, from what the rows have.

    That is the column `margin`; without it the lead in a column of scores (of a ranking, its best over its worst
    response); without that 2 |p - .5| of a label p.

    Args:
        columns: The data set's columns.

    Attributes:
        source: What it is, for messages; "" where rows have nothing of it.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        judging = [column for column in score_columns(columns) if column.judges]
        self._scores: Column | None = None
        self.source = ""
        if "margin" in columns:
            self.source = "margin"
        elif judging:
            self._scores = judging[0]
            self.source = f"lead in {judging[0].name}"
        elif labels := [name for name in ("label", "preference", "votes") if name in columns]:
            self.source = f"distance of {labels[0]} from a tie"

    def of(self, record: Record) -> float:
        """The margin of a row that can be read; NaN where it has none, or a negative one."""
        if self.source == "margin":
            margin = number_in(record.row.get("margin"))
        elif self._scores is not None:
            ranks, scores = ranks_in(record), list(self._scores.values(record))
            first, last = min(ranks), max(ranks)
            margin = scores[ranks.index(first)] - scores[ranks.index(last)] if first < last else math.nan
        else:
            label = None if isinstance(record.read, Ranking) else record.values.get("label")
            margin = math.nan if label is None else 2 * abs(label - 0.5)
        return margin if margin >= 0 else math.nan
