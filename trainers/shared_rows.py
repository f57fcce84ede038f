"""Rows that are trained and evaluated on: what an evaluation says of them was in part learnt by heart."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from datasets import Dataset
from transformers.utils import logging

from hf_align.collators.demonstrations import FORMATS

logger = logging.get_logger(__name__)

TOKENS = ("prompt_ids", "response_ids")
"""Columns of tokenised rows."""
DEMONSTRATED = tuple(dict.fromkeys(column for columns in FORMATS for column in columns))
"""Columns of demonstrations."""
DELIBERATE = "train"
"""Beginning of the names of evaluation sets that are meant to be of the rows for training."""


def warn_of_shared_rows(train: Any, evaluation: Any) -> None:
    """Warn of rows of the evaluation data that are in the training data, with their number.

    Rows are the same if their prompt is, and their responses are in any order. Of a stream nothing is known before it
    is read, so it isn't compared; nor is a data set of a user's own class, or a part of a dict whose name begins with
    "train".

    Args:
        train: Tokenised rows, or demonstrations.
        evaluation: The same, or a dict of them.
    """
    parts = evaluation if isinstance(evaluation, Mapping) else {None: evaluation}
    compared = {
        name: rows
        for name, rows in parts.items()
        if isinstance(rows, Dataset) and len(rows) and not str(name).startswith(DELIBERATE)
    }
    if not isinstance(train, Dataset) or not compared:
        return
    trained = set(_keys_of(train))
    for name, rows in compared.items():
        if shared := sum(key in trained for key in _keys_of(rows)):
            place = "eval_dataset" if name is None else f"eval_dataset[{name!r}]"
            count = f"all {len(rows):,}" if shared == len(rows) else f"{shared:,} of its {len(rows):,}"
            logger.warning(
                f"{place}: {count} rows are in train_dataset, too, so its metrics say in part what was learnt by "
                "heart; evaluate on other rows."
            )


def _keys_of(rows: Dataset) -> Iterator[int]:
    """A hash of each row's content, which is the same for responses in another order; salted for each process."""
    if TOKENS[0] not in rows.column_names:
        for row in rows.select_columns([name for name in DEMONSTRATED if name in rows.column_names]):
            yield hash(json.dumps(row, sort_keys=True, default=str))
        return
    columns = [name for name in TOKENS if name in rows.column_names]
    tables: Any = rows.select_columns(columns).with_format("arrow").iter(batch_size=1000)
    for table in tables:
        prompts = _parts_of(table["prompt_ids"])
        if len(columns) == 1:
            yield from map(hash, prompts)
            continue
        lists = table["response_ids"].combine_chunks()
        responses = list(_parts_of(lists.values))
        for prompt, (start, end) in zip(prompts, _bounds_of(lists), strict=True):
            yield hash((prompt, *sorted(responses[start:end])))


def _parts_of(lists: Any) -> Iterator[bytes]:
    """The content of each of an Arrow array of lists of token ids."""
    lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    values = lists.values.to_numpy(zero_copy_only=False)
    return (values[start:end].tobytes() for start, end in _bounds_of(lists))


def _bounds_of(lists: Any) -> Iterator[tuple[int, int]]:
    """Where each list begins and ends in the array's values."""
    places = lists.offsets.to_pylist()
    return itertools.pairwise(places)
