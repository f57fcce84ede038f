"""Recognition of a data set's layout: one of demonstrations, else one of preferences, which is converted first."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from datasets import Dataset

from hf_align.data.layouts.conversion import convert_rows
from hf_align.data.layouts.registry import LAYOUTS, first_rows
from hf_align.data.sft.layouts import Layout, find_layout
from hf_align.errors import UserError

logger = logging.getLogger(__name__)
RATED = ("rated_responses", "helpsteer")
"""Layouts of preferences whose rows can be read as demonstrations, the badly rated ones, too: a prompt, a response, and
columns that judge it."""


@dataclass(frozen=True)
class Recognised:
    """Rows whose layout is known.

    Attributes:
        layout: How they are read.
        rows: The rows; of preferences in another layout than ours, those that it was converted to.
        unusable: Numbers of rows that couldn't be converted, by what they have.
    """

    layout: Layout
    rows: Dataset
    unusable: Mapping[str, Sequence[int]] = field(default_factory=dict)


def recognise_demonstrations(data: Dataset, name: str) -> Recognised:
    """Find out how the rows of a data set are read.

    Args:
        data: The rows.
        name: Its name, for the message.

    Raises:
        UserError: It has none of the known layouts, of demonstrations or of preferences.
    """
    layout = find_layout(data.column_names)
    transcripts = layout is not None and "chosen" in layout.columns and "prompt" not in layout.columns
    if layout is not None and not (transcripts and isinstance(data[0]["chosen"], str)):
        return Recognised(layout, data)
    try:
        conversion = convert_rows(data)
    except UserError as error:
        raise UserError(
            f"{name} has the columns {', '.join(data.column_names)}, which are no known layout of demonstrations: name "
            "them prompt and completion, messages, or text (rename_column() helps). As preferences it can't be read "
            f"either: {error}"
        ) from None
    layout = find_layout(conversion.rows.column_names)
    assert layout is not None  # pairs or rankings
    layout = replace(layout, name=f"{conversion.layout.name}, as {layout.name}")
    return Recognised(layout, conversion.rows, conversion.unusable)


def warn_of_ratings(data: Dataset, name: str) -> None:
    """Warn of several responses to a prompt whose ratings nobody looks at.

    Args:
        data: The rows.
        name: Its name, for the message.
    """
    columns, first = data.column_names, first_rows(data)
    layout = next((each for each in LAYOUTS if each.name in RATED and each.matches(columns, first)), None)
    if layout is None:
        return
    present = [[each for each in names.split("|") if each in columns] for names in layout.columns]
    if len(data.unique(present[0][0])) < len(data):
        logger.warning(
            "%s: several responses to a prompt are all taken as demonstrations, whatever their %s says; quality= of "
            "prepare_sft (a column with scores from 0 to 1, or a function from rows to them) leaves out the bad ones.",
            *(name, ", ".join(names[0] for names in present[2:])),
        )
