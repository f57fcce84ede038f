"""Tokenisation of prompts, after a check of every row."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from hf_align.collators.checks import as_dataset, group_rows, read_rows, refuse, refuse_own_columns
from hf_align.collators.encoding import Ids, PairEncoder
from hf_align.collators.rows import RowProblem, read_prompt
from hf_align.collators.truncation import cut_prompt

logger = logging.getLogger(__name__)


OWN_COLUMNS = ("prompt_ids", "response_ids", "finished")
"""Arguments that rewards get from the trainer, reserved as column names."""
PROBLEM, CUT = "prompt_ids/problem", "prompt_ids/cut"
"""Columns of the report, under names that no data set has."""


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    name: str = "prompts",
    rows: Sequence[Mapping[str, Any]] | None = None,
) -> list[Ids]:
    """Encode prompts up to the start of a response; a last assistant message is continued.

    Args:
        tokenizer: The model's; messages need its chat template.
        prompts: Texts or lists of messages, not empty.
        name: Name of the prompts in messages.
        rows: One row per prompt, with `tools` and `chat_template_kwargs` for the chat template. Default: none.

    Raises:
        UserError: There is no chat template for messages, or it refuses some; the message gives row numbers.
    """
    encoder = PairEncoder(tokenizer)
    pairs = zip(prompts, rows or [{}] * len(prompts), strict=True)
    return read_rows(pairs, lambda pair: encoder.prompt(pair[0], dict(pair[1])), name)


def tokenize_prompts(
    dataset: Dataset | list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_length: int | None = None,
    num_proc: int | None = None,
    name: str = "train_dataset",
) -> Dataset:
    """Tokenise prompts to generate from, text or messages; the data set's other columns are kept.

    Args:
        dataset: Column `prompt`; optionally `tools` and `chat_template_kwargs` for the chat template, and columns for
            the reward.
        tokenizer: The model's; messages need its chat template.
        max_prompt_length: A longer prompt keeps this many tokens of its end (and BOS), which is warned about.
        num_proc: Processes to tokenise with.
        name: The argument's name, for messages.

    Returns:
        The data set with the column `prompt_ids`.

    Raises:
        UserError: There is no `prompt` column, or rows have a missing, empty or malformed prompt: one line with counts
            and row numbers.
    """
    rows = as_dataset(dataset, name, ("prompt",)).with_format(None)
    refuse_own_columns(rows.column_names, OWN_COLUMNS, name)
    tokenized = rows.map(
        _tokenize_row,
        fn_kwargs={"encoder": PairEncoder(tokenizer), "limit": max_prompt_length},
        features=Features(
            {**rows.features, "prompt_ids": List(Value("int32")), PROBLEM: Value("string"), CUT: Value("bool")}
        ),
        num_proc=num_proc,
        desc=f"Tokenizing {name}",
    )
    refuse(group_rows(tokenized[PROBLEM]), name, "fix or drop them")
    if cut := sum(tokenized[CUT]):
        logger.warning(
            "%s: %d of %d prompts are cut to their last %d tokens.", name, cut, len(tokenized), max_prompt_length
        )
    return tokenized.remove_columns([PROBLEM, CUT])


def _tokenize_row(row: dict[str, Any], encoder: PairEncoder, limit: int | None) -> dict[str, Any]:
    try:
        ids = encoder.prompt(read_prompt(row), row)
    except RowProblem as problem:
        return {"prompt_ids": [], PROBLEM: str(problem), CUT: False}
    shortened = ids if limit is None else cut_prompt(ids, limit, "keep_end", encoder.start)
    return {"prompt_ids": shortened, PROBLEM: "", CUT: len(shortened) < len(ids)}
