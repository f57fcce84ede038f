"""Rows of preference data, pairs and rankings alike: prompt and responses, and what people said about them."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any, Literal

from datasets import List, Value

from hf_align.collators.labels import SOFT, Tasks, has_task, read_label, read_tasks
from hf_align.collators.rankings import JUDGEMENTS, Ranking, preferences_of, read_ranking
from hf_align.collators.rows import Pair, RowProblem, read_pair

Kind = Literal["pairs", "rankings"]
NEEDED: dict[Kind, tuple[str, ...]] = {"pairs": ("chosen", "rejected"), "rankings": ("prompt", "responses")}
"""Required columns by kind of rows."""


def kind_of(columns: Iterable[str]) -> Kind:
    """Whether rows with these columns are pairs (`chosen`, `rejected`) or rankings (`responses`)."""
    names = set(columns)
    return "rankings" if "responses" in names and not names & {"chosen", "rejected"} else "pairs"


def columns_read(kind: Kind, tasks: Tasks, *, plain: bool = False) -> tuple[str, ...]:
    """Columns that are read from rows of a kind."""
    by_kind = ("responses", *JUDGEMENTS) if kind == "rankings" else ("chosen", "rejected", *(() if plain else SOFT))
    of_tasks = (each for name in tasks for each in (name, f"chosen_{name}", f"rejected_{name}"))
    return ("prompt", *by_kind, "margin", "weight", *of_tasks)


def made_columns(columns: Iterable[str], tasks: Tasks, *, plain: bool = False) -> dict[str, Any]:
    """Columns that `read_judged` makes from a data set's columns, with their types."""
    names = list(columns)
    types: dict[str, Any] = {}
    if kind_of(names) == "rankings":
        types["ranks"] = List(Value("int32"))
        if "scores" in names or "ratings" in names:
            types["scores"] = List(Value("float64"))
        if "ratings" in names:
            types["ratings"] = List(List(Value("float64")))
    elif not plain:
        if set(SOFT) & set(names):
            types["label"] = Value("float64")
        if "votes" in names:
            types["votes"] = List(Value("float64"))
    return types | {name: List(Value("float64")) for name in tasks if has_task(names, name)}


def read_judged(row: Mapping[str, Any], tasks: Tasks, *, plain: bool = False) -> tuple[Pair | Ranking, dict[str, Any]]:
    """Read a pair or ranking, and its values in the columns of `made_columns`.

    Args:
        row: A row with the data set's columns.
        tasks: Auxiliary tasks whose labels to read.
        plain: Whether to leave soft labels of pairs unread.

    Raises:
        RowProblem: The row can't be used.
    """
    if kind_of(row) == "rankings":
        ranking = read_ranking(dict(row))
        values = {"ranks": ranking.ranks, "scores": ranking.scores, "ratings": ranking.ratings}
        return ranking, values | read_tasks(row, tasks, len(row["responses"]), ranking.kept)
    pair = read_pair(dict(row))
    label, votes = (None, None) if plain else read_label(row)
    if not plain and label is None and (soft := [name for name in SOFT if name in row]):
        raise RowProblem(f"no {soft[0]}", "missing")
    return pair, {"label": label, "votes": votes} | read_tasks(row, tasks, 2)


def ordered_pairs(row: Pair | Ranking, values: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Numbers of two responses, the better one first, for all that have an order."""
    if isinstance(row, Ranking):
        shares = preferences_of(row.ranks)
    else:
        shares = [1.0 if values["label"] is None else values["label"]]
    pairs = zip(combinations(range(len(row.responses)), 2), shares, strict=True)
    return [(a, b) if share > 0.5 else (b, a) for (a, b), share in pairs if share == share and share != 0.5]
