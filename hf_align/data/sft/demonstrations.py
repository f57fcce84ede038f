"""Demonstrations of any known layout in a form that TRL trains on."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from hf_align.collators.checks import as_dataset
from hf_align.collators.demonstrations import FORMATS, read_demonstrations
from hf_align.data.sft.rows import standard_rows


def trained_demonstrations(dataset: Any, name: str, *, whole: bool = False) -> Dataset:
    """As `read_demonstrations`, for other layouts of demonstrations or preferences, too, which one line names.

    Args:
        dataset: See `SFTTrainer`.
        name: The argument's name, for messages.
        whole: As for `read_demonstrations`.

    Raises:
        UserError: The layout isn't known, or rows can't be used; the message gives counts and row numbers.
    """
    data = as_dataset(dataset, name, ())
    if not any(set(columns) <= set(data.column_names) for columns in FORMATS):
        data = standard_rows(data, name)
    return read_demonstrations(data, name, whole=whole)
