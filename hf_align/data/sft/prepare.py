"""Demonstrations made ready for training, with a report of what was done to which row."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, Features, Value, concatenate_datasets

from hf_align.collators.checks import as_dataset, group_rows, refuse
from hf_align.collators.demonstrations import FORMATS
from hf_align.collators.rows import RowProblem, text_of
from hf_align.collators.tools import template_options, to_dataset
from hf_align.data.sft import selection
from hf_align.data.sft.cleaning import clean_row
from hf_align.data.sft.layouts import Demonstration, Layout, columns_for, prompt_key
from hf_align.data.sft.quality import parts_of, quality_of
from hf_align.data.sft.recognition import recognise_demonstrations, warn_of_ratings
from hf_align.data.sft.report import Dropped, Place, SFTReport, check_report_file, shown, summary
from hf_align.errors import UserError
from hf_align.numbers import number_problem

logger = logging.getLogger(__name__)

Quality = Callable[[list[dict[str, Any]]], Sequence[float]]
"""A function from rows to their quality, each in [0, 1]."""
Contamination = Literal["prompt", "row"]
SOURCE, SCORE = "source", "quality_score"
BATCH = 1000
FORMS = ("messages", "prompt", "completion", "text")


@dataclass
class _Row:
    """A row on its way.

    Attributes:
        place: Where it stood.
        columns: Its other columns.
        read: What is shown to the model.
        tools: For its chat template, as JSON; None without.
        changes: What cleaning changed.
        score: Its quality.
    """

    place: Place
    columns: dict[str, Any]
    read: Demonstration
    tools: str | None = None
    changes: tuple[str, ...] = ()
    score: float = 1.0

    @property
    def source(self) -> str:
        """Its own source, or the name of its data set."""
        own = self.columns.get(SOURCE)
        return own if isinstance(own, str) and own.strip() else self.place.dataset


def prepare_sft(
    dataset: Any,
    eval_dataset: Any = None,
    *,
    clean: bool = True,
    quality: Quality | str | None = None,
    min_quality: float = 0.5,
    duplicates: float | None = 0.8,
    contamination: Contamination = "prompt",
    balance: str | None = None,
    most: int | None = None,
    ratio: float | None = None,
    seed: int = 0,
    report: SFTReport | str | Path | None = None,
    name: str = "dataset",
) -> Dataset:
    """Make demonstrations of any known layout ready for supervised fine-tuning.

    In this order rows are read, cleaned, and dropped if they can't be read, are empty, stand in the evaluation set,
    repeat another row, have too little quality, nearly repeat a better row, or belong to a category that has enough.
    Preparing prepared rows again changes nothing, and the order of the rows decides only about the result's order.

    Args:
        dataset: Rows of prompt and completion, conversations, instructions, questions with answers, plain text, pairs
            or rankings (of which the best response is taken); or a mapping from names to several such data sets, of
            different layouts.
        eval_dataset: Rows that the model will be measured on; of any of these layouts.
        clean: Whether texts are cleaned: Unicode NFC, HTML entities that an export left, control and invisible
            characters, line ends, white space.
        quality: A function from rows to scores in [0, 1], or a column that has them. Default: the lowest of the parts
            in `hf_align.data.sft.quality`.
        min_quality: Rows with less are dropped; 0 drops none.
        duplicates: Jaccard similarity of 5-grams from which two rows, prompt and completion together, say the same. 1:
            only equal ones (but for case and white space); None: none.
        contamination: What of a row may not stand in `eval_dataset`: its "prompt", or only the whole "row", where
            many rows share a prompt.
        balance: A column whose values are limited to the same number of rows.
        most: That number.
        ratio: Instead, a multiple of the smallest value's rows. Default with `balance`: 1.
        seed: Draws which rows of a category stay.
        report: A file (.json or .md) to write what was done to, or a report to fill.
        name: The argument's name, for messages.

    Returns:
        Rows as `SFTTrainer` reads them: `messages`, or `prompt` and `completion`, or `text`; with `source` (the row's
        own, else the data set's name), `quality_score`, and the other columns that weren't read.

    Raises:
        UserError: A layout is unknown, plain text stands beside conversations, an option is invalid, or nothing is
            left.

    Example:
        >>> from hf_align.data import prepare_sft
        >>> rows = [{"instruction": "Name a prime.", "input": "", "output": text} for text in ("Seven.", "Seven. ", "")]
        >>> data = prepare_sft({"primes": rows})
        >>> data[0]["messages"][1]["content"], data["source"][:], len(data)
        ('Seven.', ['primes'], 1)
    """
    _check_options(min_quality, duplicates, contamination)
    selection.check_balance(balance, most, ratio)
    if isinstance(report, str | Path):
        check_report_file(report)
    options = {
        "clean": clean,
        "quality": quality if isinstance(quality, str) or quality is None else getattr(quality, "__name__", "function"),
        **{"min_quality": min_quality, "duplicates": duplicates, "contamination": contamination},
        **{"balance": balance, "most": most, "ratio": ratio, "seed": seed},
    }
    done = report if isinstance(report, SFTReport) else SFTReport()
    if done.rows:
        raise UserError("report is filled by another preparation; give a new SFTReport().")
    done.options = options
    sets = {
        key: as_dataset(data, key, ()).with_format(None)
        for key, data in (dataset if isinstance(dataset, Mapping) else {name: dataset}).items()
    }
    for column, argument in ((balance, "balance"), (quality, "quality")):
        if isinstance(column, str) and column != SOURCE:
            for key, data in sets.items():
                selection.check_column(column, data.column_names, key, argument)
    for key, data in sets.items():
        if quality is None and SCORE not in data.column_names:
            warn_of_ratings(data, key)
    rows = _read_sets(sets, done)
    if clean:
        rows = _cleaned(rows, done)
    _drop_contaminated(rows, eval_dataset, contamination, done)
    if duplicates is not None:
        keys = [selection.exact_key(row.read.text) for row in rows]
        _drop(rows, "duplicate", {a: f"{rows[b].place} stays" for a, b in selection.first_of_each(keys).items()}, done)
    _rate(rows, quality, name)
    worst = {n: detail for n, row in enumerate(rows) if (detail := _below(row, quality, min_quality)) is not None}
    _drop(rows, "quality", worst, done)
    if duplicates is not None and duplicates < 1:
        near = selection.near_repeats([row.read.text for row in rows], [row.score for row in rows], duplicates)
        _drop(rows, "near_duplicate", {a: f"{rows[b].place} stays" for a, b in near.items()}, done)
    if balance is not None and rows:
        categories = [row.source if balance == SOURCE else str(row.columns[balance]) for row in rows]
        extra = selection.over_limit(categories, [row.read.text for row in rows], most, ratio, seed)
        _drop(rows, "balance", {number: f"{balance} {category}" for number, category in extra.items()}, done)
    result = _finish(rows, sets, done, name)
    logger.log(logging.WARNING if report is None else logging.INFO, "%s: %s.", name, done.sentence())
    if isinstance(report, str | Path):
        done.save(report)
    return result


def standard_rows(dataset: Any, name: str) -> Dataset:
    """Rows of any known layout as training reads them, all of them and unchanged otherwise.

    Args:
        dataset: As for `prepare_sft`.
        name: The argument's name, for messages.

    Raises:
        UserError: The layout is unknown, or a row can't be read; the message gives counts and row numbers.
    """
    data = as_dataset(dataset, name, ()).with_format(None)
    known = recognise_demonstrations(data, name)
    if known.layout.columns not in FORMATS:
        logger.warning("%s: recognised %s; rows: %s", name, known.layout.name, f"{len(known.rows):,}")
    if SCORE not in data.column_names:  # prepared rows: whoever prepared them was warned
        warn_of_ratings(data, name)
    rows, problems = [], []
    for place, row in _numbered(known.rows, name):
        read = _read(place, row, known.layout)
        problems.append(read if isinstance(read, str) else "")
        rows.append(read)
    unusable = {problem: list(numbers) for problem, numbers in known.unusable.items()}
    refuse({**unusable, **group_rows(problems)}, name, "fix or drop them")
    return _to_dataset(rows, {name: known.rows})


def _check_options(min_quality: float, duplicates: float | None, contamination: str) -> None:
    if number_problem(min_quality) or not 0 <= min_quality <= 1:
        raise UserError(f"min_quality is {min_quality!r}; give a number from 0 to 1.")
    if duplicates is not None and (number_problem(duplicates) or not 0 < duplicates <= 1):
        raise UserError(f"duplicates is {duplicates!r}; give a similarity above 0, at most 1 (equal), or None.")
    if contamination not in ("prompt", "row"):
        raise UserError(f"contamination is {contamination!r}; give 'prompt' or 'row'.")


def _numbered(data: Dataset, name: str) -> Any:
    for start in range(0, len(data), BATCH):  # by columns: several times faster than row by row
        batch = data[start : start + BATCH]
        for number, values in enumerate(zip(*batch.values(), strict=True), start):
            yield Place(name, number), dict(zip(batch, values, strict=True))


def _read(place: Place, row: dict[str, Any], layout: Layout) -> _Row | str:
    """The row, or what is wrong with it."""
    try:
        read = layout.read(row)
        tools = None
        if row.get("tools") and read.form == "conversation":
            tools = json.dumps(template_options({"tools": row["tools"]})["tools"] or [], ensure_ascii=False)
    except RowProblem as problem:
        return str(problem)
    others = {column: value for column, value in row.items() if column not in (*layout.columns, "tools")}
    return _Row(place, others, read, tools, read.changes)


def _read_sets(sets: Mapping[str, Dataset], done: SFTReport) -> list[_Row]:
    rows: list[_Row] = []
    forms: dict[str, str] = {}
    for name, data in sets.items():
        known = recognise_demonstrations(data, name)
        unusable = {number: problem for problem, numbers in known.unusable.items() for number in numbers}
        done.dropped += [Dropped(Place(name, n), "unreadable", problem, "") for n, problem in unusable.items()]
        done.layouts[name], done.rows[name] = known.layout.name, len(known.rows) + len(unusable)
        for place, row in _numbered(known.rows, name):
            read = _read(place, row, known.layout)
            if isinstance(read, str):
                text = " ".join(str(row[column]) for column in known.layout.columns if row.get(column) is not None)
                done.dropped.append(Dropped(place, "unreadable", read, shown(text)))
            else:
                rows.append(read)
                forms.setdefault("text" if read.read.form == "text" else "conversation", name)
    if len(forms) > 1:
        raise UserError(
            f"{forms['text']} has plain text and {forms['conversation']} has prompts with completions, which aren't "
            "trained on together: make two data sets of them, or name the columns of the text prompt and completion."
        )
    return rows


def _cleaned(rows: list[_Row], done: SFTReport) -> list[_Row]:
    for row in rows:
        cleaned = clean_row(row.read)
        row.read, row.changes = cleaned.row, cleaned.changes
    empty = {
        number: f"an empty {side}"
        for number, row in enumerate(rows)
        for side in ("prompt", "completion")
        if not text_of(getattr(row.read, side)).strip() and not (side == "prompt" and row.read.form == "text")
    }
    _drop(rows, "empty", empty, done)
    return rows


def _drop(rows: list[_Row], reason: str, details: Mapping[int, str], done: SFTReport) -> None:
    """Take rows out of the list and note it."""
    done.dropped += [
        Dropped(rows[number].place, reason, detail, shown(rows[number].read.text))
        for number, detail in sorted(details.items())
    ]
    rows[:] = [row for number, row in enumerate(rows) if number not in details]


def _drop_contaminated(rows: list[_Row], eval_dataset: Any, contamination: Contamination, done: SFTReport) -> None:
    if eval_dataset is None:
        return
    data = as_dataset(eval_dataset, "eval_dataset", ()).with_format(None)
    known = recognise_demonstrations(data, "eval_dataset")

    def key(row: Demonstration) -> str:
        cleaned = clean_row(row).row  # whether or not that is what is trained on
        return selection.exact_key(prompt_key(cleaned) if contamination == "prompt" else cleaned.text)

    held_out: dict[str, int] = {}
    for place, row in _numbered(known.rows, "eval_dataset"):
        read = _read(place, row, known.layout)
        if not isinstance(read, str):
            held_out.setdefault(key(read.read), place.row)
    places = {
        number: f"eval_dataset row {held_out[each]} has its {contamination}"
        for number, row in enumerate(rows)
        if (each := key(row.read)) in held_out
    }
    if contamination == "prompt" and 2 * len(places) > len(rows):
        logger.warning(
            "%d of %d rows have a prompt of eval_dataset and are dropped; if many rows share a prompt on purpose, "
            "contamination='row' compares the answer, too.",
            *(len(places), len(rows)),
        )
    _drop(rows, "contaminated", places, done)


def _rate(rows: list[_Row], quality: Quality | str | None, name: str) -> None:
    """Give each row its score."""
    if quality is None:
        for row in rows:
            row.score = quality_of(parts_of(text_of(row.read.completion)))[0]
        return
    if isinstance(quality, str):
        scores: Sequence[Any] = [row.columns[quality] for row in rows]
    else:
        standard = columns_for([row.read for row in rows])
        scores = list(quality([{**row.columns, **each} for row, each in zip(rows, standard, strict=True)]))
        if len(scores) != len(rows):
            raise UserError(f"quality returned {len(scores)} scores for {len(rows)} rows; return one for each.")
    for row, score in zip(rows, scores, strict=True):
        if score is None or number_problem(score) or not 0 <= score <= 1:
            raise UserError(f"quality of {row.place} is {score!r}; give a number from 0 to 1 for each row.")
        row.score = float(score)


def _below(row: _Row, quality: Quality | str | None, least: float) -> str | None:
    """Why a row's quality is too low; None if it isn't."""
    if row.score >= least:
        return None
    if quality is not None:
        return f"quality {row.score:.2f}"
    return f"{quality_of(parts_of(text_of(row.read.completion)))[1]} {row.score:.2f}"


def _finish(rows: list[_Row], sets: Mapping[str, Dataset], done: SFTReport, name: str) -> Dataset:
    order = {key: number for number, key in enumerate(sets)}
    done.dropped.sort(key=lambda each: (order[each.place.dataset], each.place.row))
    done.kept = {key: sum(row.place.dataset == key for row in rows) for key in sets}
    for row in rows:
        for change in row.changes:
            done.changed.setdefault(change, []).append(row.place)
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in done.reasons.items())
        raise UserError(f"{name}: none of {sum(done.rows.values())} rows is left ({reasons}); relax the preparation.")
    done.quality = summary([row.score for row in rows])
    result = _to_dataset(rows, sets)
    digest = hashlib.blake2b(digest_size=16)
    for row in result:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    done.fingerprint = digest.hexdigest()
    return result


def _to_dataset(rows: Sequence[_Row], sets: Mapping[str, Dataset]) -> Dataset:
    """The rows with their source, quality and other columns."""
    standard = columns_for([row.read for row in rows])
    if any(row.tools is not None for row in rows):
        standard = [{**each, "tools": row.tools} for each, row in zip(standard, rows, strict=True)]
    types: dict[str, Any] = {}
    clashes: set[str] = set()
    for data in sets.values():
        for column, kind in data.features.items():
            if types.setdefault(column, kind) != kind:
                clashes.add(column)
    if clashes:
        logger.warning("columns of different types are left out: %s.", ", ".join(sorted(clashes)))
    taken = {*FORMS, "tools", SOURCE, SCORE}
    read = {column for row in rows[:1] for column in row.columns}.union(*(row.columns for row in rows))
    others = {column: kind for column, kind in types.items() if column in read - taken - clashes}
    added = [
        {**{column: row.columns.get(column) for column in others}, SOURCE: row.source, SCORE: row.score} for row in rows
    ]
    features = Features({**others, SOURCE: Value("string"), SCORE: Value("float64")})
    return concatenate_datasets([to_dataset(standard), Dataset.from_list(added, features=features)], axis=1)
