"""Parts, sampled rows and batches of a trainer's data sets."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from hf_align.layout.cost import Lengths
from hf_align.models.vocabulary import check_token_ids
from hf_align.models.wrapper import unwrapped
from hf_align.trainers.stream import RowStream

SAMPLE_ROWS = 512
"""Rows whose lengths are used to choose a layout."""


def spread_rows(count: int, most: int = SAMPLE_ROWS) -> range:
    """Choose at most `most` of `count` rows, evenly spaced: data may be sorted."""
    return range(0, count, -(-count // most) or 1)


def sampled(data: Any, most: int = SAMPLE_ROWS) -> Any:
    """At most `most` rows of a data set, evenly spaced; the data set itself if it has no more."""
    return data if len(data) <= most else data.select(spread_rows(len(data), most))


def batches_of(documents: list[Lengths], size: int) -> list[list[Lengths]]:
    """Split documents into batches of `size`."""
    return [documents[start : start + size] for start in range(0, len(documents), size)]


def longest_rows(data: Any, count: int = 2) -> list[dict[str, Any]]:
    """The rows of a tokenised data set with most tokens in prompt and longest response (if they have responses)."""
    columns = [name for name in ("prompt_ids", "response_ids") if name in data.column_names]
    lengths: list[np.ndarray] = []
    for table in data.select_columns(columns).with_format("arrow").iter(batch_size=10_000):
        prompts = _of_lists("list_value_length", table["prompt_ids"].combine_chunks())
        responses = np.zeros(len(prompts), np.int64)
        if "response_ids" in columns:
            lists = table["response_ids"].combine_chunks()
            rows, of_each = _of_lists("list_parent_indices", lists), _of_lists("list_value_length", lists.flatten())
            np.maximum.at(responses, rows, of_each)
        lengths.append(prompts + responses)
    order = np.argsort(-np.concatenate(lengths), kind="stable") if lengths else []
    return [data[int(number)] for number in order[:count]]


def most_responses(data: Any) -> int:
    """The largest number of responses to a prompt of a tokenised data set."""
    if not hasattr(data, "column_names"):  # a user's own
        return max(len(row["response_ids"]) for row in data)
    table = data.select_columns(["response_ids"]).with_format("arrow")
    batches = (part["response_ids"].combine_chunks() for part in table.iter(batch_size=10_000))
    return max(int(_of_lists("list_value_length", lists).max()) for lists in batches)


def _of_lists(function: str, lists: Any) -> np.ndarray:
    """What Arrow's `function` says of an array of lists."""
    return pc.call_function(function, [lists]).to_numpy(zero_copy_only=False)


def parts_of(datasets: Iterable[Any]) -> list[Any]:
    """List the given data sets, those of a dict one by one; of a stream its first rows."""
    given = [data for data in datasets if data is not None]
    parts = [part for data in given for part in (data.values() if isinstance(data, dict) else [data])]
    return [part.first if isinstance(part, RowStream) else part for part in parts]


def check_tokens(model: Any, tokenizer: PreTrainedTokenizerBase, **datasets: Any) -> None:
    """Refuse tokenised data sets, given under their names, with tokens that the model has no embedding for."""
    for name, data in datasets.items():
        for part in parts_of([data]):
            rows = (chain(row["prompt_ids"], *row.get("response_ids", ())) for row in part)
            check_token_ids(unwrapped(model), tokenizer, rows, name)
