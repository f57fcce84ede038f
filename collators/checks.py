"""Checks of a whole preference data set before training."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from datasets import Dataset

from hf_align.collators.doubts import (
    DUPLICATE,
    NEAR_IDENTICAL,
    NO_ORDER,
    OPPOSITE,
    REPEATED_PROMPT,
    ZERO_MARGIN,
    are_near_identical,
    long_limit,
    repeat_prompt,
)
from hf_align.collators.judged import NEEDED, columns_read, kind_of, ordered_pairs, read_judged
from hf_align.collators.labels import SOFT, Tasks, weight_problems
from hf_align.collators.rankings import JUDGEMENTS, Ranking
from hf_align.collators.rows import NO_MESSAGES, NO_PROMPT, Pair, RowProblem, key_of, text_of, word_ends
from hf_align.collators.tools import to_dataset
from hf_align.errors import UserError

logger = logging.getLogger(__name__)

SHOWN_ROWS = 5
FIX = "fix or drop them: hf-align inspect DATASET --fix OUT writes the rows without them"
PAIR = NEEDED["pairs"]
"""Columns required for training on pairs."""
PROMPT_LIKE = (
    *("question", "instruction", "input", "query", "system", "system_prompt", "messages", "conversation"),
    *("conversations", "context", "problem", "user", "user_prompt", "prompt_text", "prompts", "post", "history"),
)
"""Columns that look like a prompt under another name."""

T = TypeVar("T")
Kinds = dict[str, list[int]]
"""Row numbers (from 0) by problem; the key is worded to follow "3 rows have"."""


@dataclass
class Findings:
    """Findings of `find_bad_rows`.

    Attributes:
        bad: Rows that can't be trained on, by problem.
        doubtful: Rows that can be trained on but deserve a look, by reason.

    Example:
        >>> from hf_align.collators import find_bad_rows
        >>> rows = [
        ...     {"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."},
        ...     {"prompt": "The film was", "chosen": " fine.", "rejected": " fine."},
        ... ]
        >>> find_bad_rows(rows).bad
        {'identical chosen and rejected': [1]}
    """

    bad: Kinds = field(default_factory=dict)
    doubtful: Kinds = field(default_factory=dict)

    @property
    def bad_rows(self) -> list[int]:
        """The numbers of all bad rows, ascending."""
        return sorted({row for rows in self.bad.values() for row in rows})


def as_dataset(dataset: Any, name: str = "train_dataset", needed: tuple[str, ...] = PAIR) -> Dataset:
    """A `datasets.Dataset` with the columns that training needs; a list of dicts is converted.

    Args:
        dataset: A `Dataset` or a list of rows.
        name: The argument's name, for messages.
        needed: The columns it must have.

    Raises:
        UserError: It is of another type, has no rows, or lacks a column.
    """
    if isinstance(dataset, list) and dataset and all(isinstance(row, dict) for row in dataset):
        try:
            dataset = to_dataset(dataset)
        except (
            TypeError,
            ValueError,
            OverflowError,
        ) as error:  # Arrow's errors have these types, and don't name the row
            if needed in NEEDED.values():
                refuse(_inspect(dataset, {}, plain=False).bad, name, "fix or drop them")
            refuse(group_rows(map(_too_large, dataset)), name, "fix or drop them")
            raise UserError(f"{name} must have one type in each column, not text here and messages there.") from error
    if isinstance(dataset, list) and not dataset:
        raise UserError(f"{name} has no rows.")
    if not isinstance(dataset, Dataset):
        raise UserError(
            f"{name} must be a datasets.Dataset or a list of dicts, not {type(dataset).__name__}: all of it is checked "
            "before training, so pass one split and load it without streaming=True."
        )
    if missing := [column for column in needed if column not in dataset.column_names]:
        rule = (
            "'chosen' and 'rejected' are needed, with 'prompt' unless both begin with it"
            if needed == PAIR
            else f"{' and '.join(map(repr, needed))} {'is' if len(needed) == 1 else 'are'} needed"
        )
        raise UserError(
            f"{name} has no column {' and no column '.join(missing)}: it has {', '.join(dataset.column_names)}, and "
            f"{rule}; rename_column() helps."
        )
    if not len(dataset):
        raise UserError(f"{name} has no rows.")
    return dataset


def find_bad_rows(
    dataset: Dataset | list[dict[str, Any]], *, tasks: Tasks | None = None, plain: bool = False
) -> Findings:
    """Find rows that can't be used and rows that deserve a look, in one pass.

    Bad: a missing, empty or malformed prompt or response; identical responses; no prompt in common; a margin or weight
    that is missing, not finite or negative; a label, ranking, score or rating that can't be one; fewer than two
    responses. Doubtful: near-identical responses (the same but for case, punctuation and spaces), responses that repeat
    a text prompt, exact duplicates, preferences that contradict an earlier one, rows very much longer than the median,
    zero margins, rankings without any order.

    Args:
        dataset: Pairs: `chosen` and `rejected`; optionally `prompt`, `margin`, `weight`, and `label`, `preference` or
            `votes`. Rankings: `prompt`, `responses`, one of `ranking`, `scores` and `ratings`; optionally `weight`.
        tasks: Auxiliary tasks by name, whose labels are checked: "regression", "binary" or a number of classes.
        plain: Whether only plain pairs are read, as for policies: no soft labels, no rankings.

    Raises:
        UserError: It isn't a data set, has no rows, or lacks a column.
    """
    data = as_preferences(dataset, plain=plain)
    wanted = columns_read(kind_of(data.column_names), tasks or {}, plain=plain)
    data = data.select_columns([name for name in wanted if name in data.column_names]).with_format(None)
    return _inspect(_rows(data), tasks or {}, plain=plain)


def check_preferences(
    dataset: Any,
    *,
    name: str = "train_dataset",
    margin_weights: bool = True,
    tasks: Tasks | None = None,
    plain: bool = False,
) -> Dataset:
    """Refuse a data set with rows that can't be trained on, and warn once about doubtful rows.

    Args:
        dataset: A `datasets.Dataset` or a list of dicts, of pairs or rankings; see `find_bad_rows` for columns and
            checks.
        name: The argument's name, for messages.
        margin_weights: Whether a margin multiplies its row's loss, so that a margin of 0 deserves a warning.
        tasks: As for `find_bad_rows`.
        plain: As for `find_bad_rows`.

    Returns:
        The data set, unchanged (a list of dicts as a `Dataset`).

    Raises:
        UserError: A row is bad: one line with each problem, its count and its first row numbers (from 0). Or all
            weights are 0.
    """
    dataset = as_preferences(dataset, name, plain=plain)
    findings = find_bad_rows(dataset, tasks=tasks, plain=plain)
    _look_for_prompt(dataset, findings.bad, name)
    refuse(findings.bad, name, f"{FIX}; find_bad_rows({name}).bad_rows lists their numbers")
    if "weight" in dataset.column_names and not any(dataset["weight"]):
        raise UserError(
            f"{name}: every weight is 0, so nothing would be learned; leave the column out to weight all rows alike."
        )
    if plain and (soft := [column for column in SOFT if column in dataset.column_names]):
        logger.warning("%s: %s isn't read here: of every pair chosen counts as better.", name, " and ".join(soft))
    if not margin_weights:
        findings.doubtful.pop(ZERO_MARGIN, None)
    if findings.doubtful:
        logger.warning("%s: %s.", name, describe(findings.doubtful))
    return dataset


def as_preferences(dataset: Any, name: str = "train_dataset", *, plain: bool = False) -> Dataset:
    """A data set of pairs or, unless `plain`, rankings, as `as_dataset` gives it.

    Raises:
        UserError: As `as_dataset`; or the rows have no judgement, several of them, or a column of the other kind.
    """
    columns = dataset[0] if isinstance(dataset, list) and dataset else getattr(dataset, "column_names", None)
    kind = kind_of(columns if isinstance(columns, dict | list) and not plain else ())
    dataset = as_dataset(dataset, name, NEEDED[kind])
    if kind == "pairs":
        return dataset
    judgements = [column for column in JUDGEMENTS if column in dataset.column_names]
    if len(judgements) != 1:
        raise UserError(
            f"{name} has responses and {' and '.join(judgements) or 'none of ' + ', '.join(JUDGEMENTS)}: give exactly "
            "one of ranking (0 = best), scores (higher is better) and ratings (lists of single ratings)."
        )
    if "margin" in dataset.column_names:
        raise UserError(
            f"{name} has responses and margin: the margins of such rows are the differences of their scores; drop or "
            "rename the column."
        )
    return dataset


def refuse_own_columns(columns: Iterable[str], reserved: tuple[str, ...], name: str) -> None:
    """Refuse a data set with columns named like the trainer's, which would be lost."""
    if clash := [column for column in reserved if column in columns]:
        raise UserError(f"{name} has a column {clash[0]}, which the trainer adds; rename or remove it.")


def refuse(bad: Kinds, name: str, fix: str) -> None:
    """Raise a `UserError` that names the bad rows and the fix, if there are any."""
    if bad:
        raise UserError(f"{name}: {describe(bad)}; {fix}.")


def describe(kinds: Kinds) -> str:
    """One line such as "3 rows have an empty chosen (rows 4, 17, 203); 1 row has no prompt (row 9)"."""
    return "; ".join(_sentence(kind, rows) for kind, rows in kinds.items())


def group_rows(problems: Iterable[str]) -> Kinds:
    """Row numbers by problem, from one text per row ("" for no problem)."""
    kinds: Kinds = {}
    for number, problem in enumerate(problems):
        _add(kinds, [problem] if problem else [], number)
    return kinds


def read_rows(rows: Iterable[Any], read: Callable[[Any], T], name: str) -> list[T]:
    """Read every row, or refuse all unreadable rows together.

    Args:
        rows: The rows.
        read: Reads one row; raises `RowProblem` if it can't be used.
        name: The argument's name, for messages.

    Raises:
        UserError: There are such rows: one line with each problem, its count and its first row numbers.
    """
    result, problems = [], []
    for row in rows:
        try:
            result.append(read(row))
            problems.append("")
        except RowProblem as problem:
            problems.append(str(problem))
    refuse(group_rows(problems), name, "fix or drop them")
    return result


def _inspect(rows: Iterable[dict[str, Any]], tasks: Tasks, *, plain: bool) -> Findings:
    findings = Findings()
    seen: set[tuple[int, int, int]] = set()
    lengths: dict[int, int] = {}
    for number, row in enumerate(rows):
        read, problems = read_or_problems(row, tasks, plain=plain)
        _add(findings.bad, problems, number)
        if read is None:
            continue
        reasons, lengths[number] = _doubts(*read, seen)
        if row.get("margin") == 0:
            reasons.append(ZERO_MARGIN)
        _add(findings.doubtful, reasons, number)
    limit, median = long_limit(list(lengths.values()))
    if long := [number for number, length in lengths.items() if length > limit]:
        findings.doubtful[f"more than {limit} characters (the median row has {median})"] = long
    return findings


def read_or_problems(
    row: dict[str, Any], tasks: Tasks, *, plain: bool
) -> tuple[tuple[Pair | Ranking, dict[str, Any]] | None, list[str]]:
    """Read a row as `read_judged` does.

    Returns:
        What was read, None if the row is unreadable; and all that is wrong with it, worded to follow "1 row has".
    """
    problems = list(map(str, weight_problems(row)))
    try:
        return read_judged(row, tasks, plain=plain), problems
    except RowProblem as problem:
        return None, [*problems, str(problem)]


def _sentence(kind: str, rows: list[int]) -> str:
    shown = ", ".join(map(str, rows[:SHOWN_ROWS])) + (", ..." if len(rows) > SHOWN_ROWS else "")
    return f"1 row has {kind} (row {shown})" if len(rows) == 1 else f"{len(rows)} rows have {kind} (rows {shown})"


def _add(kinds: Kinds, reasons: list[str], number: int) -> None:
    for reason in reasons:
        kinds.setdefault(reason, []).append(number)


def _rows(dataset: Dataset) -> Iterable[dict[str, Any]]:
    for start in range(0, len(dataset), 1000):  # in column batches: several times faster than row by row
        batch = dataset[start : start + 1000]
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _too_large(row: dict[str, Any]) -> str:
    """The problem of a row with integers of more than 64 bits, which Arrow can't hold, or ""."""
    names = [name for name, value in row.items() if isinstance(value, int) and not -(2**63) <= value < 2**63]
    return f"a {names[0]} of more than 64 bits" if names else ""


def _look_for_prompt(dataset: Dataset, bad: Kinds, name: str) -> None:
    """Stop if pairs have no prompt and a column looks like one; warn if the words they share aren't in that column."""
    unread = [column for column in PROMPT_LIKE if column in dataset.column_names]
    if not unread or "prompt" in dataset.column_names:
        return
    columns = " and ".join(map(repr, unread))
    if without := bad.get(NO_PROMPT) or bad.get(NO_MESSAGES):
        use = (
            f'{name}.rename_column("{unread[0]}", "prompt")'
            if len(unread) == 1
            else f"{name}.map(...) to make one column prompt of what belongs to it"
        )
        raise UserError(
            f"{name} has no column prompt, {describe({'chosen and rejected without a common beginning': without})}, "
            f"and {columns} would not be read: is this the prompt? use {use}."
        )
    others = [
        number
        for number, row in enumerate(_rows(dataset.select_columns([*PAIR, *unread]).with_format(None)))
        if isinstance(row["chosen"], str) and not _begins_with(row, unread)
    ]
    if others:
        logger.warning(
            "%s: %s; is one of them the prompt?",
            *(name, describe({f"a prompt of shared words alone, without what is in {columns}": others})),
        )


def _begins_with(row: dict[str, Any], columns: list[str]) -> bool:
    """Whether the common words of chosen and rejected contain the text of one of the columns, or all are empty."""
    texts = [row[column].strip() for column in columns if isinstance(row[column], str) and row[column].strip()]
    shared = row["chosen"][: next(word_ends(row["chosen"], row["rejected"]), 0)]
    return not texts or any(text in shared for text in texts)


def _doubts(row: Pair | Ranking, values: dict[str, Any], seen: set[tuple[int, int, int]]) -> tuple[list[str], int]:
    """Reasons to doubt the row, and its length in characters; records it in `seen`."""
    reasons = []
    prompt, keys = key_of(row.prompt), [key_of(response) for response in row.responses]
    order = [(prompt, keys[better], keys[worse]) for better, worse in ordered_pairs(row, values)]
    if order and seen.issuperset(order):
        reasons.append(DUPLICATE)
    if any((prompt, worse, better) in seen for _, better, worse in order):
        reasons.append(OPPOSITE)
    seen.update(order)
    if isinstance(row, Ranking) and not order:
        reasons.append(NO_ORDER)
    texts = [text_of(response) for response in row.responses]
    if are_near_identical(texts):
        reasons.append(NEAR_IDENTICAL)
    if repeat_prompt(row.prompt, texts):
        reasons.append(REPEATED_PROMPT)
    return reasons, len(text_of(row.prompt or "")) + max(map(len, texts))
