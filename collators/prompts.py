"""A data set of prompts becomes token ids, after a check of every row."""

import logging
from collections.abc import Iterable
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from hf_align.collators.checks import as_dataset, group_rows, read_rows, refuse
from hf_align.collators.encoding import Ids, PairEncoder
from hf_align.collators.rows import RowProblem, read_prompt
from hf_align.collators.truncation import cut_prompt
from hf_align.errors import UserError

logger = logging.getLogger(__name__)


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Iterable[Any], name: str = "prompts") -> list[Ids]:
    """Encode prompts up to where a response begins; a last assistant message is continued.

    Args:
        tokenizer: The model's; messages need its chat template.
        prompts: Texts or lists of messages, not empty.
        name: What they are called in messages.

    Raises:
        UserError: If there is no chat template for messages, or it refuses some; the message numbers them.
    """
    encoder = PairEncoder(tokenizer)
    return read_rows(prompts, lambda prompt: encoder.prompt(prompt, {}), name)


def tokenize_prompts(
    dataset: Dataset | list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_length: int | None = None,
    num_proc: int | None = None,
    name: str = "train_dataset",
) -> Dataset:
    """Tokenise prompts to generate from, text or messages; all of the data set's columns stay beside them.

    Args:
        dataset: Column `prompt`; optionally `tools` and `chat_template_kwargs` for the chat template, and whatever the
            reward needs.
        tokenizer: The model's; messages need its chat template.
        max_prompt_length: A longer prompt keeps this many tokens of its end (and BOS), which is warned about.
        num_proc: Processes to tokenise with.
        name: The argument's name, for messages.

    Returns:
        The data set with the column `prompt_ids`.

    Raises:
        UserError: If there is no `prompt` column, or rows have a missing, empty or malformed prompt: one line with
            counts and row numbers.
    """
    rows = as_dataset(dataset, name, ("prompt",)).with_format(None)
    if "prompt_ids" in rows.column_names:
        raise UserError(f"{name} has a column prompt_ids, which is the trainer's own; rename or remove it.")
    tokenized = rows.map(
        _tokenize_row,
        fn_kwargs={"encoder": PairEncoder(tokenizer), "limit": max_prompt_length},
        features=Features(
            {**rows.features, "prompt_ids": List(Value("int32")), "problem": Value("string"), "cut": Value("bool")}
        ),
        num_proc=num_proc,
        desc=f"Tokenizing {name}",
    )
    refuse(group_rows(tokenized["problem"]), name, "fix or drop them")
    if cut := sum(tokenized["cut"]):
        logger.warning(
            "%s: %d of %d prompts are cut to their last %d tokens.", name, cut, len(tokenized), max_prompt_length
        )
    return tokenized.remove_columns(["problem", "cut"])


def _tokenize_row(row: dict[str, Any], encoder: PairEncoder, limit: int | None) -> dict[str, Any]:
    try:
        ids = encoder.prompt(read_prompt(row), row)
    except RowProblem as problem:
        return {"prompt_ids": [], "problem": str(problem), "cut": False}
    shortened = ids if limit is None else cut_prompt(ids, limit, "keep_end", encoder.start)
    return {"prompt_ids": shortened, "problem": "", "cut": len(shortened) < len(ids)}
