"""Demonstrations made ready for training, with a report of what was done to which row."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from hf_align.collators.checks import as_dataset
from hf_align.collators.rows import text_of
from hf_align.data.sft import selection
from hf_align.data.sft.cleaning import clean_row
from hf_align.data.sft.layouts import Demonstration, columns_for, prompt_key
from hf_align.data.sft.quality import parts_of, quality_of
from hf_align.data.sft.recognition import recognise_demonstrations, warn_of_ratings
from hf_align.data.sft.report import Dropped, SFTReport, check_report_file, shown, summary
from hf_align.data.sft.rows import SCORE, SOURCE, Row, numbered, read_row, read_sets, standard_dataset
from hf_align.errors import UserError
from hf_align.numbers import number_problem

logger = logging.getLogger(__name__)

Quality = Callable[[list[dict[str, Any]]], Sequence[float]]
"""A function from rows to their quality, each in [0, 1]."""
Contamination = Literal["prompt", "row"]


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
    done = _report_of(report)
    done.options = {
        "clean": clean,
        "quality": quality if isinstance(quality, str) or quality is None else getattr(quality, "__name__", "function"),
        **{"min_quality": min_quality, "duplicates": duplicates, "contamination": contamination},
        **{"balance": balance, "most": most, "ratio": ratio, "seed": seed},
    }
    given = dataset if isinstance(dataset, Mapping) else {name: dataset}
    sets = {key: as_dataset(data, key, ()).with_format(None) for key, data in given.items()}
    _check_columns(sets, balance, quality)
    rows = read_sets(sets, done)
    if clean:
        rows = _cleaned(rows, done)
    _drop_contaminated(rows, eval_dataset, contamination, done)
    if duplicates is not None:
        repeats = selection.first_of_each([selection.exact_key(row.read.text) for row in rows])
        _drop_repeats(rows, "duplicate", repeats, done)
    _rate(rows, quality, name)
    worst = {n: detail for n, row in enumerate(rows) if (detail := _below(row, quality, min_quality)) is not None}
    _drop(rows, "quality", worst, done)
    if duplicates is not None and duplicates < 1:
        near = selection.near_repeats([row.read.text for row in rows], [row.score for row in rows], duplicates)
        _drop_repeats(rows, "near_duplicate", near, done)
    if balance is not None and rows:
        categories = [row.source if balance == SOURCE else str(row.columns[balance]) for row in rows]
        extra = selection.over_limit(categories, [row.read.text for row in rows], most, ratio, seed)
        _drop(rows, "balance", {number: f"{balance} {category}" for number, category in extra.items()}, done)
    result = _finish(rows, sets, done, name)
    logger.log(logging.WARNING if report is None else logging.INFO, "%s: %s.", name, done.sentence())
    if isinstance(report, str | Path):
        done.save(report)
    return result


def _report_of(given: SFTReport | str | Path | None) -> SFTReport:
    """The report to fill; refuses a file that can't be written, and one that is filled."""
    if isinstance(given, str | Path):
        check_report_file(given)
    done = given if isinstance(given, SFTReport) else SFTReport()
    if done.rows:
        raise UserError("report is filled by another preparation; give a new SFTReport().")
    return done


def _check_columns(sets: Mapping[str, Dataset], balance: str | None, quality: Quality | str | None) -> None:
    """Refuse data sets without a column that is named; warn of ratings that nothing reads."""
    for column, argument in ((balance, "balance"), (quality, "quality")):
        if isinstance(column, str) and column != SOURCE:
            for key, data in sets.items():
                selection.check_column(column, data.column_names, key, argument)
    for key, data in sets.items():
        if quality is None and SCORE not in data.column_names:
            warn_of_ratings(data, key)


def _check_options(min_quality: float, duplicates: float | None, contamination: str) -> None:
    if number_problem(min_quality) or not 0 <= min_quality <= 1:
        raise UserError(f"min_quality is {min_quality!r}; give a number from 0 to 1.")
    if duplicates is not None and (number_problem(duplicates) or not 0 < duplicates <= 1):
        raise UserError(f"duplicates is {duplicates!r}; give a similarity above 0, at most 1 (equal), or None.")
    if contamination not in ("prompt", "row"):
        raise UserError(f"contamination is {contamination!r}; give 'prompt' or 'row'.")


def _cleaned(rows: list[Row], done: SFTReport) -> list[Row]:
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


def _drop(rows: list[Row], reason: str, details: Mapping[int, str], done: SFTReport) -> None:
    """Take rows out of the list and note it."""
    done.dropped += [
        Dropped(rows[number].place, reason, detail, shown(rows[number].read.text))
        for number, detail in sorted(details.items())
    ]
    rows[:] = [row for number, row in enumerate(rows) if number not in details]


def _drop_repeats(rows: list[Row], reason: str, repeats: Mapping[int, int], done: SFTReport) -> None:
    """Take out rows that say what another one says, which stays."""
    _drop(rows, reason, {number: f"{rows[stays].place} stays" for number, stays in repeats.items()}, done)


def _drop_contaminated(rows: list[Row], eval_dataset: Any, contamination: Contamination, done: SFTReport) -> None:
    if eval_dataset is None:
        return
    data = as_dataset(eval_dataset, "eval_dataset", ()).with_format(None)
    known = recognise_demonstrations(data, "eval_dataset")

    def key(row: Demonstration) -> str:
        cleaned = clean_row(row).row  # whether or not that is what is trained on
        return selection.exact_key(prompt_key(cleaned) if contamination == "prompt" else cleaned.text)

    held_out: dict[str, int] = {}
    for place, row in numbered(known.rows, "eval_dataset"):
        read = read_row(place, row, known.layout)
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


def _rate(rows: list[Row], quality: Quality | str | None, name: str) -> None:
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


def _below(row: Row, quality: Quality | str | None, least: float) -> str | None:
    """Why a row's quality is too low; None if it isn't."""
    if row.score >= least:
        return None
    if quality is not None:
        return f"quality {row.score:.2f}"
    return f"{quality_of(parts_of(text_of(row.read.completion)))[1]} {row.score:.2f}"


def _finish(rows: list[Row], sets: Mapping[str, Dataset], done: SFTReport, name: str) -> Dataset:
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
    result = standard_dataset(rows, sets)
    digest = hashlib.blake2b(digest_size=16)
    for row in result:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    done.fingerprint = digest.hexdigest()
    return result
