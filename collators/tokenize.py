"""Tokenisation of preference data: one row per prompt with its responses; of a pair the chosen one first."""

import logging
from collections.abc import Iterator
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from hf_align.collators.checks import as_preferences, group_rows, refuse, refuse_own_columns
from hf_align.collators.encoding import Ids, PairEncoder, Texts, have_duplicates
from hf_align.collators.judged import made_columns, read_judged
from hf_align.collators.labels import Tasks
from hf_align.collators.rankings import Ranking
from hf_align.collators.rows import Pair, RowProblem
from hf_align.collators.truncation import Limits, TruncationMode, truncate

logger = logging.getLogger(__name__)

IDS = {"prompt_ids": List(Value("int32")), "response_ids": List(List(Value("int32")))}
KEPT = ("margin", "weight")
CUT_FIX = "fix or drop them, or raise max_length where they were cut"
REPORT = {
    "problem": Value("string"),
    "prompt_cut": Value("bool"),
    "response_cut": Value("bool"),
    "left_out": Value("int32"),
}


def tokenize_preferences(
    dataset: Dataset | list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
    max_prompt_length: int | None = None,
    truncation_mode: TruncationMode = "keep_end",
    num_proc: int | None = None,
    name: str = "train_dataset",
    tasks: Tasks | None = None,
    plain: bool = False,
) -> Dataset:
    """Tokenise a preference data set, standard or conversational, with an explicit or (pairs) implicit prompt.

    The prompt's ids are those of inference (including the chat template's generation prompt). A response's ids are
    those after the prompt in the joint tokenisation, and end once with the token at which the model stops: EOS for
    text, the template's end of turn for conversations. `check_preferences` gives better messages for bad rows, so call
    it first.

    Args:
        dataset: Pairs: `chosen` and `rejected`; optionally `prompt`, `margin`, `weight`, and `label`, `preference` or
            `votes`. Rankings: `prompt`, `responses`, one of `ranking`, `scores` and `ratings`; optionally `weight`.
            Both optionally `tools` and `chat_template_kwargs` for the chat template.
        tokenizer: The model's; conversations need its chat template.
        max_length: Tokens of prompt + response. Too long: the prompt is cut first, then the responses' ends.
        max_prompt_length: Tokens of the prompt alone.
        truncation_mode: Part of a cut prompt to keep, "keep_end" (with BOS) or "keep_start".
        num_proc: Processes to tokenise with.
        name: The argument's name, for messages.
        tasks: Auxiliary tasks by name, whose labels to read: "regression", "binary" or a number of classes.
        plain: Whether only plain pairs are read, as for policies: no soft labels, no rankings.

    Returns:
        Columns `prompt_ids` and `response_ids` (of pairs the chosen response's ids and then the rejected one's);
        `margin` and `weight` where the data set has them; of pairs with soft labels `label` (P(first better)) and
        perhaps `votes`; of rankings `ranks` (0 = best, -1 = below all ranked) and perhaps `scores` and `ratings`;
        labels of each task under its name. Responses without a score or rating are left out.

    Raises:
        UserError: The limits, the tokenizer or the columns are unsuitable, or rows can't be used (see
            `check_preferences`) or have identical responses once they are tokenised and cut: one line with counts and
            row numbers.
    """
    rows = as_preferences(dataset, name, plain=plain)
    tasks = tasks or {}
    made = IDS | made_columns(rows.column_names, tasks, plain=plain)
    refuse_own_columns(rows.column_names, tuple(IDS), name)
    limits = Limits(max_length, max_prompt_length, truncation_mode)
    columns = [column for column in KEPT if column in rows.column_names]
    types = made | {column: rows.features[column] for column in columns} | REPORT
    tokenized = rows.with_format(None).map(
        _tokenize_batch,
        batched=True,
        fn_kwargs={
            "encoder": PairEncoder(tokenizer),
            "limits": limits,
            "tasks": tasks,
            "plain": plain,
            "made": list(made),
        },
        remove_columns=[column for column in rows.column_names if column not in columns],
        features=Features(types),
        num_proc=num_proc,
        desc=f"Tokenizing {name}",
    )
    refuse(group_rows(tokenized["problem"]), name, CUT_FIX)
    prompts, responses = sum(tokenized["prompt_cut"]), sum(tokenized["response_cut"])
    if prompts or responses:
        logger.warning(
            "%s: of %d rows, %d have their prompt and %d a response cut (max_length=%s, max_prompt_length=%s; a cut "
            "response ends without EOS).",
            *(name, len(tokenized), prompts, responses, max_length, max_prompt_length),
        )
    if left_out := sum(tokenized["left_out"]):
        logger.warning("%s: responses without a score or rating, left out: %d.", name, left_out)
    return tokenized.remove_columns(list(REPORT))


def _tokenize_batch(
    batch: dict[str, list], encoder: PairEncoder, limits: Limits, tasks: Tasks, plain: bool, made: list[str]
) -> dict[str, list]:
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    results = tokenize_rows(rows, encoder, limits, tasks, plain=plain)
    return {column: [result.get(column) for result in results] for column in (*made, *REPORT)}


def tokenize_rows(
    rows: list[dict[str, Any]], encoder: PairEncoder, limits: Limits, tasks: Tasks, *, plain: bool
) -> list[dict[str, Any]]:
    """Tokenise rows together.

    Args:
        rows: Rows with the same columns, as `tokenize_preferences` takes them.
        encoder: Renders and tokenises.
        limits: Maximum lengths.
        tasks: Auxiliary tasks whose labels to read.
        plain: Whether only plain pairs are read.

    Returns:
        Of each row the values of `IDS` and of `made_columns`, its `problem` ("": none), and what was cut or left out.
    """
    readings = [_read(row, encoder, tasks, plain=plain) for row in rows]
    # One call for the whole batch, which the tokenizer processes in parallel.
    ids = iter(
        encoder.encode([text for reading in readings if not isinstance(reading, str) for text in reading[2].all])
    )
    return [
        _bad(reading) if isinstance(reading, str) else _finish(*reading, ids, encoder, limits) for reading in readings
    ]


def _read(
    row: dict[str, Any], encoder: PairEncoder, tasks: Tasks, *, plain: bool
) -> tuple[Pair | Ranking, dict[str, Any], Texts] | str:
    """The row read and rendered, or its problem."""
    try:
        read, values = read_judged(row, tasks, plain=plain)
        return read, values, encoder.texts(read.prompt, read.responses, row)
    except RowProblem as problem:
        return str(problem)


def _finish(
    row: Pair | Ranking,
    values: dict[str, Any],
    texts: Texts,
    ids: Iterator[Ids],
    encoder: PairEncoder,
    limits: Limits,
) -> dict[str, Any]:
    """The output row; takes the row's joint ids from `ids`."""
    joint = [next(ids) for _ in texts.all]
    try:
        prompt, responses = encoder.split(row, texts, joint)
    except RowProblem as problem:
        return _bad(str(problem))
    cut_prompt, cut_responses = truncate(prompt, responses, limits, start=encoder.start)
    if have_duplicates(cut_responses):
        return _bad("responses that are identical once cut to max_length")
    return values | {
        "prompt_ids": cut_prompt,
        "response_ids": cut_responses,
        "problem": "",
        "prompt_cut": cut_prompt != prompt,
        "response_cut": cut_responses != responses,
        "left_out": row.left_out if isinstance(row, Ranking) else 0,
    }


def _bad(problem: str) -> dict[str, Any]:
    return {column: [] for column in IDS} | {
        "problem": problem,
        "prompt_cut": False,
        "response_cut": False,
        "left_out": 0,
    }
