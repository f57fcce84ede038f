"""Rows as a trainer or a report takes them: as they are where it reads them, else converted, which one line says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset, concatenate_datasets

from hf_align.collators import scorable
from hf_align.collators.checks import PAIR, PROMPT_LIKE, as_dataset, read_rows
from hf_align.collators.judged import kind_of, read_judged
from hf_align.collators.rankings import JUDGEMENTS
from hf_align.collators.rows import RowProblem, key_of
from hf_align.collators.scorable import read_any_prompt
from hf_align.collators.tools import to_dataset
from hf_align.data.layouts.conversion import Conversion, convert_rows
from hf_align.data.layouts.layout import UNREADABLE, Layout, Row
from hf_align.data.layouts.registry import columns_of, first_rows, recognise
from hf_align.data.layouts.strings import is_transcript
from hf_align.errors import UserError

logger = logging.getLogger(__name__)


def trained_rows(data: Any, name: str, *, plain: bool = False) -> Any:
    """Rows that a trainer of preferences is given, as the pairs or rankings that it reads.

    Rows that are pairs or rankings already are returned unchanged, whatever defects some of them have. Any other layout
    that `to_preferences` knows is converted as it does by default; one line says what was recognised and left out.

    Args:
        data: A data set or a list of rows; anything else is returned unchanged.
        name: The argument's name, for messages.
        plain: Whether the trainer takes pairs alone, so that rankings become all their pairs.

    Raises:
        UserError: The layout is known, but no row of it can be used; or the columns are none of a known layout.
    """
    if not _has_rows(data):
        return data
    needed = _needs_conversion(data, plain=plain)
    if needed is not None:
        return converted(data, name, as_pairs=plain, needed=needed)
    columns = columns_of(data)
    if set(PAIR) <= set(columns) and "prompt" not in columns:
        _mention_transcripts(data, name)
    return data


def layout_to_convert(first: list[dict[str, Any]], name: str, *, plain: bool = False) -> Layout | None:
    """The layout that `trained_rows` would convert these first rows of a stream from; None if it returned them.

    Raises:
        UserError: The columns are none of a known layout.
    """
    needed = _needs_conversion(first, plain=plain)
    return None if needed is None else _layout_of(first, name, as_pairs=plain, needed=needed)


def _needs_conversion(data: Any, *, plain: bool) -> bool | None:
    """Whether rows that need conversion have the columns that a trainer needs; None if it reads them as they are."""

    def reads(row: Row) -> None:
        if plain and kind_of(row) == "rankings":
            raise RowProblem("several responses")
        read_judged(row, {}, plain=plain)

    columns = columns_of(data)
    if is_read(data, reads, columns) and not _asked_elsewhere(columns):
        return None
    needed = set(PAIR) <= set(columns) or (not plain and "responses" in columns and set(JUDGEMENTS) & set(columns))
    return bool(needed)


def prompt_rows(data: Any, name: str) -> Any:
    """Rows with a column `prompt`: unchanged if they have one, else with the prompts of any layout, as one line says.

    Messages and pairs that begin alike keep their rows and columns; of a layout that is converted the different prompts
    are taken.

    Args:
        data: A data set or a list of rows; anything else is returned unchanged.
        name: The argument's name, for messages.

    Raises:
        UserError: No prompts can be found, or those of some rows can't be read.
    """
    if not _has_rows(data) or "prompt" in (columns := columns_of(data)):
        return data
    if is_read(data, read_any_prompt, columns):
        rows = as_dataset(data, name, ())
        prompts = read_rows(rows.with_format(None), read_any_prompt, name)
        logger.warning("%s: prompts are read from %s.", name, "messages" if "messages" in columns else "the pairs")
        return concatenate_datasets([to_dataset([{"prompt": prompt} for prompt in prompts]), rows], axis=1)
    try:
        conversion = convert_rows(data, min_gap=0)
    except UserError as error:
        raise UserError(f"{name} has no column prompt, and {error}") from None
    prompts = read_rows(conversion.rows.with_format(None), read_any_prompt, name)
    distinct = list({key_of(prompt): prompt for prompt in prompts}.values())
    logger.warning(
        "%s: recognised %s (%s); rows: %s, different prompts: %s",
        *(name, conversion.layout.name, conversion.layout.source, f"{conversion.read:,}", f"{len(distinct):,}"),
    )
    return to_dataset([{"prompt": prompt} for prompt in distinct])


def scored_rows(data: Any, name: str) -> Any:
    """Rows whose responses `hf-align score` reads, unchanged, or else converted as `trained_rows` does.

    Args:
        data: A data set or a list of rows; anything else is returned unchanged.
        name: The argument's name, for messages.

    Raises:
        UserError: The layout is known, but no row of it can be used.
    """
    if not _has_rows(data):
        return data
    columns = columns_of(data)
    layout = next((each for each in scorable.LAYOUTS if set(each.columns) <= set(columns)), None)
    if layout is not None and is_read(data, layout.read, columns):
        return data
    return converted(data, name, needed=True)


def converted(data: Any, name: str, *, as_pairs: bool = False, min_gap: float = 0.5, needed: bool = False) -> Any:
    """Rows of any known layout as pairs or rankings, with a line that says what was recognised.

    Args:
        data: A data set or a list of rows, at least one.
        name: The argument's name, for messages.
        as_pairs: As for `to_preferences`.
        min_gap: As there.
        needed: Whether the columns that are needed are there, so that rows which no layout matches are returned
            unchanged: what reads them says better what is wrong.

    Raises:
        UserError: The layout isn't known, or no row can be used.
    """
    if _layout_of(data, name, as_pairs=as_pairs, needed=needed) is None:
        return data
    try:
        conversion = convert_rows(data, as_pairs=as_pairs, min_gap=min_gap)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    say(conversion, name)
    return conversion.rows


def _layout_of(data: Any, name: str, *, as_pairs: bool, needed: bool) -> Layout | None:
    """The layout to convert rows from; None if they stay as they are. See `converted`."""
    try:
        layout = recognise(columns_of(data), first_rows(data))
    except UserError as error:
        if needed:
            return None
        raise UserError(f"{name}: {error}") from None
    return None if layout.unchanged and not (as_pairs and layout.makes == "rankings") else layout


def say(conversion: Conversion, name: str) -> None:
    """Print what was recognised, made and left out."""
    logger.warning("%s: %s", name, conversion)


def is_read(data: Dataset | Sequence[Row], reads: Callable[[Row], Any], columns: Sequence[str]) -> bool:
    """Whether at least half of the first rows can be read: some may be defective."""
    rows = [{name: row.get(name) for name in columns} for row in first_rows(data)]
    return 2 * sum(_is_readable(row, reads) for row in rows) >= len(rows)


def _is_readable(row: Row, reads: Callable[[Row], Any]) -> bool:
    try:
        reads(row)
    except UNREADABLE:
        return False
    return True


def _has_rows(data: Any) -> bool:
    if isinstance(data, list):
        return bool(data) and all(isinstance(row, dict) for row in data)
    return isinstance(data, Dataset) and len(data) > 0


def _asked_elsewhere(columns: Sequence[str]) -> bool:
    """Whether the prompt may be in a column of another name, and what both responses begin with only looks like it."""
    return "prompt" not in columns and "responses" not in columns and bool(set(PROMPT_LIKE) & set(columns))


def _mention_transcripts(data: Any, name: str) -> None:
    if all(is_transcript(row.get(side)) for row in first_rows(data) for side in PAIR):
        logger.warning(
            "%s: its transcripts (Human: ..., Assistant: ...) are trained on as they stand, as text; hf-align convert "
            "makes messages of them.",
            name,
        )
