"""Rows of each kind, read, checked and tokenised as their trainer does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_align.algorithms import Rows
from hf_align.collators.checks import read_rows
from hf_align.collators.encoding import PairEncoder
from hf_align.data.sft.demonstrations import trained_demonstrations
from hf_align.layout.branches import Document
from hf_align.trainers.pairs import tokenized_pairs
from hf_align.trainers.reward_setup import prepare_comparisons
from hf_align.trainers.rollouts.data import prompts_of

Documents = list[Document]
"""Rows as token ids of prompts with their responses."""


def _pairs(rows: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase, args: Any) -> Documents:
    read = {name: tokenized_pairs(data, tokenizer, args, name) for name, data in rows.items()}
    return _documents(read["train_dataset"])


def _comparisons(rows: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase, args: Any) -> Documents:
    tasks = args.tasks or {}
    read = {name: prepare_comparisons(data, tokenizer, args, name, tasks) for name, data in rows.items()}
    return _documents(read["train_dataset"])


def _documents(rows: Dataset) -> Documents:
    return list(zip(rows["prompt_ids"], rows["response_ids"], strict=True))


def tokenized_prompts(
    rows: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase, args: Any, reward: Any = None
) -> dict[str, Any]:
    """Prompts by data set, with the columns that the reward asks for."""
    return {name: prompts_of(data, reward, tokenizer, args, name) for name, data in rows.items()}


def _prompts(rows: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase, args: Any) -> Documents:
    """Prompts with responses of maximum length, since the real lengths are unknown before sampling."""
    read = tokenized_prompts(rows, tokenizer, args)["train_dataset"]
    return [(prompt, [[0] * args.max_new_tokens] * args.num_samples) for prompt in read["prompt_ids"]]


def _demonstrations(rows: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase, args: Any) -> Documents:
    read = {name: trained_demonstrations(data, name) for name, data in rows.items()}["train_dataset"]
    encoder, limit = PairEncoder(tokenizer), args.max_length

    def document(row: dict[str, Any]) -> tuple[list[int], list[list[int]]]:
        if "text" in row:
            whole = tokenizer(row["text"])["input_ids"][:limit]
        else:
            prompt, response = encoder.prompt_and_response(row["prompt"], row["completion"])
            whole = [*prompt, *response][:limit]
        return whole[:1], [whole[1:] or [0]]

    return read_rows(map(dict, read), document, "train_dataset")


READERS: dict[Rows, Callable[[Mapping[str, Dataset], PreTrainedTokenizerBase, Any], Documents]] = {
    "pairs": _pairs,
    "comparisons": _comparisons,
    "prompts": _prompts,
    "demonstrations": _demonstrations,
}
"""Functions that read and tokenise, by kind of rows."""
