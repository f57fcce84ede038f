"""Tokenisation of preference data: one row per prompt with its responses, the better one first."""

import logging
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from hf_align.collators.checks import as_dataset, group_rows, refuse, refuse_own_columns
from hf_align.collators.encoding import Ids, PairEncoder, Texts
from hf_align.collators.rows import Pair, RowProblem, read_pair
from hf_align.collators.truncation import Limits, TruncationMode, truncate

logger = logging.getLogger(__name__)

IDS = {"prompt_ids": List(Value("int32")), "response_ids": List(List(Value("int32")))}
KEPT = ("margin", "weight")
REPORT = ("problem", "prompt_cut", "response_cut")


def tokenize_preferences(
    dataset: Dataset | list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
    max_prompt_length: int | None = None,
    truncation_mode: TruncationMode = "keep_end",
    num_proc: int | None = None,
    name: str = "train_dataset",
) -> Dataset:
    """Tokenise a preference data set, standard or conversational, with an explicit or implicit prompt.

    The prompt's ids are those of inference (including the chat template's generation prompt). A response's ids are
    those after the prompt in the joint tokenisation, and end once with the token at which the model stops: EOS for
    text, the template's end of turn for conversations. `check_preferences` gives better messages for bad rows, so call
    it first.

    Args:
        dataset: Columns `chosen` and `rejected`; optionally `prompt`, `margin`, `weight`, and `tools` and
            `chat_template_kwargs` for the chat template.
        tokenizer: The model's; conversations need its chat template.
        max_length: Tokens of prompt + response. Too long: the prompt is cut first, then the response's end.
        max_prompt_length: Tokens of the prompt alone.
        truncation_mode: Part of a cut prompt to keep, "keep_end" (with BOS) or "keep_start".
        num_proc: Processes to tokenise with.
        name: The argument's name, for messages.

    Returns:
        Columns `prompt_ids` and `response_ids`, the chosen response's ids and then the rejected one's, and `margin` and
        `weight` where the data set has them.

    Raises:
        UserError: The limits, the tokenizer or the columns are unsuitable, or rows can't be used (see
            `check_preferences`) or have identical responses once they are tokenised and cut: one line with counts and
            row numbers.
    """
    rows = as_dataset(dataset, name)
    refuse_own_columns(rows.column_names, tuple(IDS), name)
    limits = Limits(max_length, max_prompt_length, truncation_mode)
    columns = [column for column in KEPT if column in rows.column_names]
    types = IDS | {column: rows.features[column] for column in columns}
    types |= {"problem": Value("string"), "prompt_cut": Value("bool"), "response_cut": Value("bool")}
    tokenized = rows.with_format(None).map(
        _tokenize_batch,
        batched=True,
        fn_kwargs={"encoder": PairEncoder(tokenizer), "limits": limits},
        remove_columns=[column for column in rows.column_names if column not in columns],
        features=Features(types),
        num_proc=num_proc,
        desc=f"Tokenizing {name}",
    )
    refuse(group_rows(tokenized["problem"]), name, "fix or drop them, or raise max_length where they were cut")
    prompts, responses = sum(tokenized["prompt_cut"]), sum(tokenized["response_cut"])
    if prompts or responses:
        logger.warning(
            "%s: of %d rows, %d have their prompt and %d a response cut (max_length=%s, max_prompt_length=%s; a cut "
            "response ends without EOS).",
            *(name, len(tokenized), prompts, responses, max_length, max_prompt_length),
        )
    return tokenized.remove_columns(list(REPORT))


def _tokenize_batch(batch: dict[str, list], encoder: PairEncoder, limits: Limits) -> dict[str, list]:
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    readings = [_read(row, encoder) for row in rows]
    # One call for the whole batch, which the tokenizer processes in parallel.
    ids = iter(encoder.encode([text for _, texts, _ in readings if texts for text in texts.all]))
    results = [
        _finish(pair, texts, [next(ids), next(ids), next(ids)], encoder, limits) if pair and texts else _bad(problem)
        for pair, texts, problem in readings
    ]
    return {column: [result[column] for result in results] for column in (*IDS, *REPORT)}


def _read(row: dict[str, Any], encoder: PairEncoder) -> tuple[Pair | None, Texts | None, str]:
    """The row read and rendered, or its problem."""
    try:
        pair = read_pair(row)
        return pair, encoder.texts(pair.prompt, (pair.chosen, pair.rejected), row), ""
    except RowProblem as problem:
        return None, None, str(problem)


def _finish(pair: Pair, texts: Texts, ids: list[Ids], encoder: PairEncoder, limits: Limits) -> dict[str, Any]:
    """The output row of a pair's joint ids."""
    try:
        prompt, responses = encoder.split(pair, texts, ids)
    except RowProblem as problem:
        return _bad(str(problem))
    cut_prompt, cut_responses = truncate(prompt, responses, limits, start=encoder.start)
    if cut_responses[0] == cut_responses[1]:
        return _bad("responses that are identical once cut to max_length")
    return {
        "prompt_ids": cut_prompt,
        "response_ids": cut_responses,
        "problem": "",
        "prompt_cut": cut_prompt != prompt,
        "response_cut": cut_responses != responses,
    }


def _bad(problem: str) -> dict[str, Any]:
    return {column: [] for column in IDS} | {"problem": problem, "prompt_cut": False, "response_cut": False}
