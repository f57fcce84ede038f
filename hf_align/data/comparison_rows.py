"""Reading an evaluation's rows: pairs, lists of chosen and rejected responses, rankings, rated responses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from datasets import Dataset

from hf_align.collators.checks import as_dataset, read_rows
from hf_align.collators.labels import SOFT, read_label
from hf_align.collators.rankings import JUDGEMENTS, preferences_of, read_ranking
from hf_align.collators.rows import Message, RowProblem, Side, key_of, read_pair, read_prompt, read_side, word_ends
from hf_align.collators.tools import template_columns
from hf_align.data.augment import refuse_augmented
from hf_align.data.comparisons import (
    MAX_PAIRS,
    Comparisons,
    Group,
    Preference,
    Response,
    build_comparisons,
    vote_shares,
)
from hf_align.data.domains import check_names
from hf_align.data.layouts.recognition import converted, is_read
from hf_align.errors import UserError
from hf_align.numbers import number_problem

STYLES = ("concise", "detailed", "detailed markdown")
"""RM-Bench's names of its three styles."""
SUBSET_COLUMNS = ("subset", "domain")
"""Columns that name a row's subset, the first that is there."""

Row = Mapping[str, Any]


def read_comparisons(
    dataset: Any,
    *,
    across_prompts: bool = False,
    min_gap: float = 0.0,
    max_pairs: int = MAX_PAIRS,
    styles: tuple[str, ...] = STYLES,
    seed: int = 0,
    name: str = "data",
) -> Comparisons:
    """Read rows of any layout.

    Args:
        dataset: A `Dataset` or a list of dicts, with the optional columns `subset` or `domain`, `tools`,
            `chat_template_kwargs`, and who wrote a response (`chosen_source` and `rejected_source`, or `..._model`;
            `sources` or `models` of rankings; `source` or `model`), in one of these layouts:

            - pairs: `prompt` (or both begin with it), `chosen`, `rejected`; the preference's strength as `label` or
              `preference` (P(chosen is better)), `votes` (single people's 0, .5 or 1), or `chosen_ratings` and
              `rejected_ratings` (single people's ratings); without one, chosen is better for sure; `margin`;
            - lists: `prompt`, and `chosen` and `rejected` as lists of responses: every chosen one is better than every
              rejected one. If all rows have as many of both, two or more, they are one content in several styles;
            - rankings: `prompt`, `responses` and `ranking` (0 for the best; None or -1: below all ranked), `scores`
              (None: not scored) or `ratings` (single people's ratings of each);
            - rated responses: `prompt`, `response` and `rating`, or `ratings` (single people's).
        across_prompts: Compare rated responses to different prompts, too, within a subset.
        min_gap: Pairs of people's scores that differ by no more are undecided.
        max_pairs: Most pairs made of people's scores; with more, a sample of them is measured.
        styles: Names of the styles.
        seed: Seed of the sample.
        name: The argument's name, for messages.

    Raises:
        UserError: The layout is unknown, or a row can't be used.
    """
    dataset = _recognised(dataset, name)
    columns = _columns(dataset)
    layout = _layout(columns)
    needed = _LAYOUTS[layout]
    if across_prompts and layout != "ratings":
        raise UserError(
            f"across_prompts compares rated responses (response with rating or ratings), and {name} has "
            f"{' and '.join(needed)}, which are compared within a row; leave it out."
        )
    judgements = [column for column in _JUDGED_BY.get(layout, ()) if column in columns]
    # A pair's labels and votes are compared row by row, and its ratings stand in two columns.
    if len(judgements) > 1 and (layout == "rankings" or {"chosen_ratings"} < {*judgements} - {"rejected_ratings"}):
        raise UserError(
            f"{name} has {' and '.join([*needed[-1:], *judgements])}, which may contradict each other; drop or rename "
            "all but one."
        )
    human_kind = _human_kind(columns, layout)
    if min_gap > 0 and human_kind in ("", "ranks"):
        raise UserError(
            f"min_gap is {min_gap:g}, a difference of people's scores or ratings, and {name} has none; leave it out."
        )
    refuse_augmented(dataset, name)
    rows = [dict(row) for row in as_dataset(dataset, name, needed).with_format(None)]
    if layout == "pairs" and _lists(rows[0]["chosen"]):
        layout = "lists"
    subset = next((column for column in SUBSET_COLUMNS if column in columns), "")
    numbered = [{**row, _NUMBER: number, _SUBSET: str(row.get(subset) or "")} for number, row in enumerate(rows)]
    check_names([row[_SUBSET] for row in numbered], subset)
    groups = read_rows(numbered, _READERS[layout], name)
    styles = _styles_of(rows, styles, name) if layout == "lists" else ()
    if layout == "ratings":
        groups = _by_prompt(groups, across_prompts)
    return build_comparisons(
        groups if styles or layout != "lists" else _without_styles(groups),
        layout=layout,
        across_prompts=across_prompts,
        human_kind=human_kind,
        styles=styles,
        min_gap=min_gap,
        max_pairs=max_pairs,
        seed=seed,
    )


_NUMBER, _SUBSET = "__number__", "__subset__"


def _layout(columns: Sequence[str]) -> str:
    """The layout with these columns; "" if there is none."""
    return next((layout for layout, needed in _LAYOUTS.items() if set(needed) <= set(columns)), "")


def _recognised(dataset: Any, name: str) -> Any:
    """Rows in one of our layouts, converted from another one where they aren't.

    Raises:
        UserError: They have no layout that is known.
    """
    columns = _columns(dataset)
    if not columns:
        return as_dataset(dataset, name, ())
    layout = _layout(columns)

    def read(row: Row) -> Group:
        kind = "lists" if layout == "pairs" and _lists(row["chosen"]) else layout
        return _READERS[kind]({**row, _NUMBER: 0, _SUBSET: ""})

    if layout and is_read(dataset, read, columns):
        return dataset
    try:
        return converted(dataset, name, min_gap=0.0, needed=bool(layout))
    except UserError as error:
        if layout:
            raise
        raise UserError(
            f"{name} has the columns {', '.join(columns)}; the report reads chosen and rejected, responses with "
            f"ranking, scores or ratings, or response with rating or ratings: rename_column() helps. {error}"
        ) from None


def _columns(dataset: Any) -> list[str]:
    if isinstance(dataset, Dataset):
        return dataset.column_names
    rows = dataset if isinstance(dataset, list) else []
    return list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))


def _response(row: Row, text: Side, prompt: Side, **more: Any) -> Response:
    if isinstance(prompt, list) and isinstance(text, str):
        text = [Message(role="assistant", content=text)]
    elif isinstance(prompt, str) and isinstance(text, list):
        prompt = [Message(role="user", content=prompt)]
    return Response(row[_NUMBER], prompt, text, template_columns(row), row[_SUBSET], **more)


def _pair(row: Row) -> Group:
    pair = read_pair(dict(row))
    prompt, chosen, rejected = pair.prompt, pair.chosen, pair.rejected
    if prompt is None:  # implicit: the words that both begin with
        assert isinstance(chosen, str) and isinstance(rejected, str)
        end = next(word_ends(chosen, rejected))
        prompt, chosen, rejected = chosen[:end], chosen[end:], rejected[end:]
    votes = [_votes(row.get(f"{side}_ratings"), f"{side}_ratings") for side in ("chosen", "rejected")]
    label, single = read_label(row)
    number = len(single or [1])
    if label is None and all(votes):
        label, number = float(vote_shares(votes, np.array([0]), np.array([1]))[0]), min(map(len, votes))
    human = [float(np.mean(side)) if all(votes) else float("nan") for side in votes]
    sources = [_source(row, f"{side}_source", f"{side}_model") for side in ("chosen", "rejected")]
    responses = [
        _response(row, text, prompt, human=value, votes=tuple(given), source=source)
        for text, value, given, source in zip((chosen, rejected), human, votes, sources, strict=True)
    ]
    margin = float("nan") if number_problem(row.get("margin")) else abs(float(row["margin"]))
    return Group(responses, [Preference(0, 1, 1.0 if label is None else label, number, margin)])


def _list(row: Row) -> Group:
    prompt = read_prompt(dict(row))
    sides = []
    for name in ("chosen", "rejected"):
        if not _lists(row[name]):
            raise RowProblem(f"a {name} that is no list of responses, as in the first row")
        sides.append([read_side({name: text}, name) for text in row[name]])
    responses = [_response(row, text, prompt, style=style) for side in sides for style, text in enumerate(side)]
    chosen = len(sides[0])
    return Group(responses, [Preference(i, j, 1.0) for i in range(chosen) for j in range(chosen, len(responses))])


def _lists(value: Any) -> bool:
    """Whether a side is a list of responses (texts, or lists of messages), not one list of messages."""
    return isinstance(value, list) and bool(value) and all(isinstance(part, str | list) for part in value)


def _styles_of(rows: Sequence[Row], names: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Names of the styles, if every row has as many chosen as rejected responses, two or more."""
    sizes = {len(row[side]) for row in rows for side in ("chosen", "rejected")}
    if len(sizes) != 1 or (size := sizes.pop()) < 2:
        return ()
    if size != len(names):
        names = tuple(f"style {number + 1}" for number in range(size))
    return names


def _without_styles(groups: Sequence[Group]) -> list[Group]:
    return [Group([r._replace(style=-1) for r in group.responses], group.preferences) for group in groups]


def _ranking(row: Row) -> Group:
    """A ranking; ranks are scores 0, -1, ..., and those below all ranked share the lowest without being compared."""
    ranking = read_ranking(dict(row))
    votes = ranking.ratings or [[]] * len(ranking.responses)
    lowest = -float(max(ranking.ranks) + 1)
    human = ranking.scores or [-float(rank) if rank >= 0 else lowest for rank in ranking.ranks]
    writers = next((row[name] for name in ("sources", "models") if isinstance(row.get(name), list)), [])
    sources = [str(writers[n] or "") if len(writers) == len(row["responses"]) else "" for n in ranking.kept]
    responses = [
        _response(row, text, ranking.prompt, human=value, votes=tuple(given), source=source)
        for text, value, given, source in zip(ranking.responses, human, votes, sources, strict=True)
    ]
    if ranking.scores is not None:
        return Group(responses)
    pairs = zip(combinations(range(len(responses)), 2), preferences_of(ranking.ranks), strict=True)
    return Group(responses, [Preference(*pair, share) for pair, share in pairs if share == share])


def _rated(row: Row) -> Group:
    prompt, text = read_prompt(dict(row)), read_side(dict(row), "response")
    votes = _votes(row["ratings"], "ratings") if row.get("ratings") is not None else []
    if not votes and number_problem(row.get("rating")):
        raise RowProblem("no rating that is a number")
    human = float(np.mean(votes)) if votes else float(row["rating"])
    if row.get("rating") is not None and not abs(float(row["rating"]) - human) < _ROUNDED:
        raise RowProblem("a rating that isn't the mean of its ratings")
    source = _source(row, "source", "model")
    return Group([_response(row, text, prompt, human=human, votes=tuple(votes), source=source)])


def _by_prompt(rows: Sequence[Group], across_prompts: bool) -> list[Group]:
    """Rated responses that are compared: those to one prompt, or all of a subset."""
    gathered: defaultdict[Any, list[Response]] = defaultdict(list)
    for row in rows:
        (response,) = row.responses
        gathered[response.subset if across_prompts else (key_of(response.prompt), str(response.options))].append(
            response
        )
    return [Group(responses) for responses in gathered.values()]


def _source(row: Row, *names: str) -> str:
    """Who wrote a response, by the first of these columns that says so; "" if none does."""
    return next((row[name] for name in names if isinstance(row.get(name), str)), "")


def _votes(value: Any, name: str) -> list[float]:
    if value is None:
        return []
    if not isinstance(value, list) or not value or any(map(number_problem, value)):
        raise RowProblem(f"{name} that are no list of numbers")
    return [float(vote) for vote in value]


def _human_kind(columns: Sequence[str], layout: str) -> str:
    if layout == "pairs":
        return "ratings" if {"chosen_ratings", "rejected_ratings"} <= set(columns) else ""
    if layout == "lists":
        return ""
    kinds = {"ranking": "ranks", "scores": "scores", "ratings": "ratings", "rating": "ratings"}
    return next((kind for name, kind in kinds.items() if name in columns), "")


_ROUNDED = 0.06
"""A rating may be the mean of its ratings rounded to one decimal."""
_JUDGED_BY = {"rankings": JUDGEMENTS, "pairs": (*SOFT, "chosen_ratings", "rejected_ratings")}
"""Columns that say which response people prefer, one of which a row may have."""
_LAYOUTS = {
    "rankings": ("prompt", "responses"),
    "pairs": ("chosen", "rejected"),
    "ratings": ("prompt", "response"),
}
_READERS: Mapping[str, Callable[[Row], Group]] = {
    "pairs": _pair,
    "lists": _list,
    "rankings": _ranking,
    "ratings": _rated,
}
