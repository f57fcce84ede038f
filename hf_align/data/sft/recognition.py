"""Recognition of a data set's layout: one of demonstrations, else one of preferences, which is converted first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from datasets import Dataset

from hf_align.data.layouts.conversion import convert_rows
from hf_align.data.sft.layouts import Layout, find_layout
from hf_align.errors import UserError


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
