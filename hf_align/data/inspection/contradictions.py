"""Preferences that can't all hold: cycles within a prompt, and scores that contradict them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hf_align.data.cycles import Link, describe_cycle, rows_to_drop, shortest_cycle, strong_components
from hf_align.data.inspection import scores
from hf_align.data.inspection.findings import Found, Kind
from hf_align.data.inspection.preferences import Preferences
from hf_align.data.inspection.records import Check, Context, Record
from hf_align.data.inspection.scores import SECTION, Scores
from hf_align.numbers import number_problem

CYCLE = Kind(
    "cycle",
    SECTION,
    "warning",
    "Drop the rows whose preference doesn't hold; the fixed data leaves out as few rows as break all circles, those "
    "with the smallest margin first.",
)


class Cycles:
    """Finds preferences of one prompt that go round in a circle of three or more.

    Two opposite preferences are a contradicted pair, which the section "duplicates" lists; they take no part here.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._preferences = Preferences(named=True)

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        for record in records:
            if record.read is not None:
                self._preferences.add(record)

    def finish(self) -> Found:
        """Figures and the finding, if any."""
        rows: list[int] = []
        drop: list[int] = []
        sizes, fewest = [], True
        groups, hashes = self._groups()
        for links in groups:
            inside = sorted({row for each in links.values() for row in each})
            dropped, certain = rows_to_drop(links, self._margins(inside))
            rows, drop, fewest = rows + inside, drop + dropped, fewest and certain
            sizes.append(len({node for link in links for node in link}))
        metrics = {"groups": len(groups), "rows": len(rows), "to_drop": len(drop), "fewest": fewest, "sizes": sizes}
        if not rows:
            return Found({"cycles": metrics})
        responses = " to ".join(map(str, sorted({min(sizes), max(sizes)})))
        count = "the fewest possible" if fewest else "perhaps more than needed: some groups are too large for a search"
        message = (
            f"{len(rows)} rows have preferences that go round in a circle, in {len(groups)} "
            f"group{'s' if len(groups) > 1 else ''} of {responses} responses; without {len(drop)} of them no circle is "
            f"left ({count})."
        )
        return Found(
            {"cycles": metrics},
            [CYCLE.found(sorted(rows), message, example=self._example(groups[0], hashes), drop=sorted(drop))],
        )

    def _groups(self) -> tuple[list[dict[Link, list[int]]], NDArray[np.uint64]]:
        """Rows by preference, for each group of responses in cycles, and the hash of each response."""
        each = self._preferences
        hashes, nodes, times = np.unique(each.nodes, return_inverse=True, return_counts=True)
        if not len(hashes):
            return [], hashes
        counts = each.counts.astype(np.intp)
        shared = np.add.reduceat((times[nodes] > 1).astype(np.intp), np.cumsum(counts) - counts)
        parts = [(rows, nodes[a], nodes[b]) for rows, a, b in each.ordered(shared > 1)]
        if not parts:
            return [], hashes
        places, better, worse = (np.concatenate(column) for column in zip(*parts, strict=True))
        opposed = np.isin(better * len(hashes) + worse, worse * len(hashes) + better)
        places, better, worse = places[~opposed], better[~opposed], worse[~opposed]
        component = strong_components(len(hashes), better, worse)
        inside = np.flatnonzero(component[better] == component[worse])
        inside = inside[np.argsort(places[inside], kind="stable")]
        groups: defaultdict[int, defaultdict[Link, list[int]]] = defaultdict(lambda: defaultdict(list))
        for row, a, b in zip(
            each.rows[places[inside]].tolist(), better[inside].tolist(), worse[inside].tolist(), strict=True
        ):
            groups[int(component[a])][a, b].append(row)
        return [dict(links) for links in groups.values()], hashes

    def _margins(self, rows: Sequence[int]) -> dict[int, float]:
        """Margin of each row that has one."""
        if "margin" not in self._context.columns:
            return {}
        margins = {record.number: record.row["margin"] for record in self._context.fetch(rows)}
        return {row: float(margin) for row, margin in margins.items() if number_problem(margin) is None}

    def _example(self, links: dict[Link, list[int]], hashes: NDArray[np.uint64]) -> str:
        nodes = shortest_cycle(links)[:-1]
        first = min(range(len(nodes)), key=lambda n: links[nodes[n], nodes[(n + 1) % len(nodes)]][0])
        cycle = [*nodes[first:], *nodes[: first + 1]]
        records = self._context.fetch(sorted({links[link][0] for link in pairwise(cycle)}))
        fetched = Preferences(named=True)
        for record in records:
            fetched.add(record)
        texts = dict(zip(fetched.nodes.tolist(), (text for each in records for text in each.responses), strict=True))
        return describe_cycle(records[0].prompt, [texts[int(hashes[node])] for node in cycle])


KINDS = (CYCLE, *scores.KINDS)
CHECKS: tuple[Callable[[Context], Check], ...] = (Cycles, Scores)
