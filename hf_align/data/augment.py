"""More preference pairs from those there are: implied ones, mixed ones, and the same ones in other words."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value, concatenate_datasets

from hf_align.collators.checks import refuse
from hf_align.collators.rows import text_of
from hf_align.data.chains import Chains, Circle
from hf_align.data.compared import NUMBERS, Compared, Pairs, read_compared
from hf_align.data.cycles import describe_cycle
from hf_align.data.reword import Reword, reword
from hf_align.data.strengths import fit_strengths
from hf_align.errors import UserError
from hf_align.numbers import number_problem

logger = logging.getLogger(__name__)

MADE = "augmented:"
"""What the `source` of a made row begins with; the kind follows."""
ORIGINAL = "original"
"""`source` of rows that had none."""
MOST = 100
"""Most pairs that one kind may make for each row; more is a mistake."""
UNDECIDED = 1e-4
"""A mixed pair whose label is nearer to .5 says nothing and is left out."""


def augment(
    dataset: Any,
    *,
    transitivity: bool | float = False,
    interpolation: bool | float = False,
    paraphrase: Reword | None = None,
    back_translation: Reword | None = None,
    seed: int = 0,
    name: str = "dataset",
) -> Dataset:
    """Add made preference pairs to a data set, each marked as such.

    Each kind is made of the given rows alone. Rows that anything is measured on must stay out: split first, then
    augment the part for training.

    Args:
        dataset: Pairs: `prompt`, `chosen`, `rejected`; optionally `margin`, `weight`, and `label`, `preference` or
            `votes`, as for `RewardTrainer`.
        transitivity: Add a > c where a > b and b > c are preferences on one prompt, and so on along longer chains. Its
            margin, label and weight are the smallest of its chain; of several chains, those of the one whose smallest
            margin (label, where there is no margin) is the largest. True: all; a number: at most that many for each
            row of the data, drawn at random.
        interpolation: Add pairs of responses of different pairs of one prompt, with soft labels: P(a better than d) by
            strengths that are fitted to all pairs of the prompt (see `fit_strengths`). Where rows have a margin, that
            of a mixed pair is in proportion to the difference of strengths. True or a number as above.
        paraphrase: Rewrites texts, `list[str] -> list[str]`; adds each pair with both responses rewritten.
        back_translation: The same for a function that translates texts and translates them back.
        seed: Determines what is drawn.
        name: The argument's name, for messages.

    Returns:
        The rows, then the made ones, with the columns `source` (their own, or "original"; of made rows
        "augmented:transitivity" and so on) and `origin` (numbers of the rows that it was made of; of the others their
        own). Where labels are soft, all have a `label`. Other columns of a made row are those that its rows share;
        `chosen_NAME` and `rejected_NAME` go with their response.

    Raises:
        UserError: A row can't be used, preferences on one prompt go round in a circle or contradict each other
            (transitivity), a function returns no text for each or one response for the other, or nothing is asked for.

    Example:
        >>> from hf_align.data import augment
        >>> texts = [" a joy.", " fine.", " too long."]
        >>> rows = [{"prompt": "The film was", "chosen": a, "rejected": b} for a, b in zip(texts, texts[1:])]
        >>> augment(rows, transitivity=True)[2]
        {'prompt': 'The film was', 'chosen': ' a joy.', 'rejected': ' too long.', 'source': 'augmented:transitivity', 'origin': [0, 1]}
    """  # noqa: E501
    if not (transitivity or interpolation or paraphrase or back_translation):
        raise UserError("augment makes nothing: give transitivity, interpolation, paraphrase or back_translation.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed is {seed!r}; give a whole number from 0.")
    pairs = read_compared(dataset, name)
    made: dict[str, list[dict[str, Any]]] = {}
    notes: dict[str, str] = {}
    rng = np.random.default_rng(seed)
    taken = set(map(frozenset, ((each.better, each.worse) for each in pairs.compared)))
    if transitivity:
        made["transitivity"], notes["transitivity"] = _implied(pairs, _most(transitivity, "transitivity"), taken, rng)
    if interpolation:
        most = _most(interpolation, "interpolation")
        made["interpolation"], notes["interpolation"] = _mixed(pairs, most, taken, rng)
    for kind, function in (("paraphrase", paraphrase), ("back_translation", back_translation)):
        if function is not None:
            rewritten, left_out = reword(pairs.rows, [read.responses for read in pairs.read], function, kind)
            made[kind] = [{**pairs.rows[number], **sides, "origin": [number]} for number, sides in rewritten]
            notes[kind] = _left_out(left_out)
    counts = ", ".join(f"{len(rows)} by {kind}{notes[kind]}" for kind, rows in made.items())
    logger.warning("%s: %d rows, and made of them %s.", name, len(pairs.rows), counts)
    return _joined(pairs, made)


def made_by(source: Any) -> str:
    """The kind that a made row's `source` names, such as "transitivity"; "" for rows that nobody made."""
    return source.removeprefix(MADE) if isinstance(source, str) and source.startswith(MADE) else ""


def count_made(data: Any) -> dict[str, int]:
    """Number of made rows by kind, of a data set or a list of rows; of anything else none.

    Example:
        >>> from hf_align.data.augment import augment, count_made
        >>> rows = [{"prompt": "p", "chosen": a, "rejected": b} for a, b in ("ab", "bc")]
        >>> count_made(augment(rows, transitivity=True))
        {'transitivity': 1}
    """
    return dict(Counter(kind for source in _sources(data) if (kind := made_by(source))))


def _sources(data: Any) -> Iterable[Any]:
    if isinstance(data, Dataset):
        return data.with_format(None)["source"] if "source" in data.column_names else []
    return [row.get("source") for row in data if isinstance(row, Mapping)] if isinstance(data, list) else []


def refuse_augmented(data: Any, name: str) -> None:
    """Refuse to measure on rows that `augment` made.

    Args:
        data: A data set or a list of rows.
        name: The argument's name, for the message.

    Raises:
        UserError: A row's `source` says that it was made.
    """
    rows = [number for number, source in enumerate(_sources(data)) if made_by(source)]
    fix = "nobody judged them: split the data before augmenting it, and augment the training part only"
    refuse({"a source that says augmented": rows} if rows else {}, name, fix)


def _most(asked: bool | float, name: str) -> float:
    """Most rows to make for each row; `inf` for True."""
    if asked is True:
        return math.inf
    if number_problem(asked) or asked < 0:
        raise UserError(f"{name} is {asked!r}; give True (all), or a number of made rows for each row of the data.")
    return float(asked)


def _implied(
    pairs: Pairs, most: float, taken: set[frozenset[int]], rng: np.random.Generator
) -> tuple[list[dict[str, Any]], str]:
    """Pairs that chains of preferences imply; adds them to those taken."""
    decided = [each for each in pairs.compared if each.label > 0.5]
    margins = "margin" in pairs.data.column_names
    values = [pairs.rows[each.row]["margin"] if margins else each.label for each in decided]
    try:
        chains = Chains([(each.better, each.worse) for each in decided], values)
    except Circle as circle:
        raise UserError(_circle(pairs, decided, circle.nodes)) from None
    new = [pair for pair in chains.pairs if frozenset(pair) not in taken]
    rows = []
    for better, worse in _drawn(new, most, len(pairs.rows), "transitivity", rng):
        links = [decided[number] for number in chains.chain(better, worse)]
        label = {"label": min(each.label for each in links)}
        rows.append(pairs.made(better, worse, [each.row for each in links]) | label)
        taken.add(frozenset((better, worse)))
    return rows, _part_of(rows, new)


def _circle(pairs: Pairs, decided: Sequence[Compared], nodes: Sequence[int]) -> str:
    row_of = {(each.better, each.worse): each.row for each in decided}
    rows = [row_of[link] for link in pairwise(nodes)]
    circle = describe_cycle(text_of(pairs.read[rows[0]].prompt or ""), [pairs.text(node) for node in nodes])
    how = "contradict each other" if len(rows) == 2 else "go round in a circle"
    numbers = f"{', '.join(map(str, rows[:-1]))} and {rows[-1]}"
    return (
        f"{pairs.name}: the preferences of rows {numbers} {how}: {circle}; "
        "correct or drop one of the rows, or leave transitivity out."
    )


def _mixed(
    pairs: Pairs, most: float, taken: set[frozenset[int]], rng: np.random.Generator
) -> tuple[list[dict[str, Any]], str]:
    """Pairs of responses of different pairs of one prompt, with labels from fitted strengths."""
    compared, columns = pairs.compared, pairs.data.column_names
    one, two = (np.array([getattr(each, side) for each in compared]) for side in ("better", "worse"))
    weight = [pairs.rows[each.row]["weight"] for each in compared] if "weight" in columns else None
    strength = fit_strengths(len(pairs.places), one, two, [each.label for each in compared], weight)
    scale = None
    if "margin" in columns:  # margins in proportion to strengths, by least squares
        margin, lead = np.array([pairs.rows[each.row]["margin"] for each in compared]), strength[one] - strength[two]
        scale = max(0.0, float(margin @ lead / (lead @ lead or 1.0)))
    rows_of: dict[int, list[int]] = {}
    for each in compared:
        for response in (each.better, each.worse):
            rows_of.setdefault(response, []).append(each.row)

    def candidates() -> Iterator[tuple[int, int]]:
        for first, second in _within_prompts(pairs.prompts, 4 * MOST * len(pairs.rows), rng):
            better, worse = (first, second) if strength[first] >= strength[second] else (second, first)
            certain = 1 / (1 + math.exp(strength[worse] - strength[better]))
            if frozenset((first, second)) not in taken and certain - 0.5 > UNDECIDED:
                yield better, worse

    rows = []
    possible = list(candidates())
    for better, worse in _drawn(possible, most, len(pairs.rows), "interpolation", rng):
        lead = strength[better] - strength[worse]
        row = pairs.made(better, worse, sorted({*rows_of[better], *rows_of[worse]}))
        row |= {"label": float(1 / (1 + math.exp(-lead)))} | ({} if scale is None else {"margin": float(scale * lead)})
        rows.append(row)
    return rows, _part_of(rows, possible)


def _within_prompts(prompts: Sequence[int], enough: int, rng: np.random.Generator) -> Iterable[tuple[int, int]]:
    """Two responses of one prompt each: all, or a random part where there are many more than could be used."""
    groups: dict[int, list[int]] = {}
    for response, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(response)
    members = list(groups.values())
    ends = np.cumsum([len(group) * (len(group) - 1) // 2 for group in members])
    total = int(ends[-1])
    chosen = np.arange(total) if total <= enough else np.sort(rng.choice(total, enough, replace=False))
    for group, number in zip(np.searchsorted(ends, chosen, side="right"), chosen, strict=True):
        # Pairs (i, j) with i < j, counted j by j: j * (j - 1) / 2 of them come before those of j.
        place = int(number - (ends[group - 1] if group else 0))
        j = (1 + math.isqrt(8 * place + 1)) // 2
        yield members[group][place - j * (j - 1) // 2], members[group][j]


def _drawn(
    possible: list[tuple[int, int]], most: float, rows: int, kind: str, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """All possible pairs, or a random part of them in their order."""
    count = len(possible) if most == math.inf else min(len(possible), round(most * rows))
    if count > MOST * rows:
        raise UserError(
            f"{kind} would make more than {MOST} pairs for each of {rows} rows; give a number, such as {kind}=1: at "
            "most as many as there are rows."
        )
    return [possible[number] for number in np.sort(rng.choice(len(possible), count, replace=False))] if count else []


def _part_of(rows: Sequence[Any], possible: Sequence[Any]) -> str:
    return " (a random part)" if len(rows) < len(possible) else ""


def _left_out(counts: Counter[str]) -> str:
    listed = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return f" (left out: {listed})" if listed else ""


def _joined(pairs: Pairs, made: dict[str, list[dict[str, Any]]]) -> Dataset:
    """The given rows with what was made, in columns of types that hold both."""
    data, rows = pairs.data, pairs.rows
    types = {column: Value("float64") for column in NUMBERS if column in data.column_names}
    added: dict[str, tuple[list[Any], Any]] = {
        "origin": ([[number] for number in range(len(rows))], List(Value("int64")))
    }
    if pairs.soft or "interpolation" in made:
        added["label"] = (pairs.labels, Value("float64"))
    sources = [row.get("source") for row in rows]
    added["source"] = ([ORIGINAL if source is None else str(source) for source in sources], Value("string"))
    kept = data.remove_columns([column for column in added if column in data.column_names])
    kept = kept.cast(Features(kept.features | types))
    for column in ("label", "source", "origin"):
        if column in added:
            kept = kept.add_column(column, added[column][0], feature=added[column][1])
    new = [{**row, "source": f"{MADE}{kind}"} for kind, each in made.items() for row in each]
    for row in new:
        if len(row["origin"]) == 1 and row.get("label") is None:
            row["label"] = pairs.labels[row["origin"][0]]
    new = [{column: row.get(column) for column in kept.column_names} for row in new]
    if not new:
        return kept
    return concatenate_datasets([kept, Dataset.from_list(new, features=kept.features)], info=kept.info)
