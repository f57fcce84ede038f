"""What a choice is made from: features of data, model, resources and needs; None where one isn't known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_align.collators.rows import RowProblem, text_of
from hf_align.data.inspection.inspect import inspect_preferences
from hf_align.data.layouts.registry import first_rows, recognise
from hf_align.data.sft.layouts import find_layout
from hf_align.errors import UserError
from hf_align.progress import Progress

ROWS = 5000
"""Rows that are inspected; of more, so many evenly spread ones."""
TOKENS_PER_WORD = 1.5
"""Assumed without a tokenizer."""
Kind = Literal["pairs", "demonstrations", "prompts"]


@dataclass(frozen=True)
class Features:
    """What rules and a learned model see.

    Attributes:
        kind: Rows of the data: "pairs" (or rankings), "demonstrations" or "prompts".
        rows: Number of rows.
        pairs: Number of pairs; 0 for other rows.
        completeness: Share of rows that can be trained on.
        agreement: Mean share of agreeing pairs of people in a row.
        noise: Expected share of wrong labels: of the agreement a = p² + (1-p)², 1 - p; without agreement the share of
            rows that contradict another.
        margin_mean: Mean margin, on the data's scale.
        margin_variance: Its variance.
        clear_share: Share of rows with a margin of at least .2.
        prompt_diversity: Distinct prompts over rows.
        longer_better: Share of pairs whose longer response is the better one.
        prompt_tokens: Mean tokens of a prompt.
        response_tokens: Mean tokens of a response.
        longest_prompt: Tokens of the longest prompt that was inspected.
        longest_response: The same of responses.
        chat: Whether the model's tokenizer has a chat template.
        parameters: Weights of the model.
        architecture: Class of the model.
        footprint: Bytes of its weights as stored in the compute dtype.
        speed: Tokens a second in one forward pass on all devices; None without their operations a second.
        memory: Bytes of one device.
        gpus: Number of devices.
        hours: Hours of training allowed, the budget included.
        budget: Money allowed.
        reward: "given" or "none".
        needs: Stated needs.
    """

    kind: Kind
    rows: int
    pairs: int
    completeness: float | None
    agreement: float | None
    noise: float | None
    margin_mean: float | None
    margin_variance: float | None
    clear_share: float | None
    prompt_diversity: float | None
    longer_better: float | None
    prompt_tokens: float
    response_tokens: float
    longest_prompt: int
    longest_response: int
    chat: bool | None
    parameters: int
    architecture: str
    footprint: float
    speed: float | None
    memory: float
    gpus: int
    hours: float | None
    budget: float | None
    reward: Literal["given", "none"]
    needs: tuple[str, ...]


def data_features(
    dataset: Any, tokenizer: PreTrainedTokenizerBase | None, progress: Progress | None = None
) -> dict[str, Any]:
    """The features of the data, by `inspect_preferences` where it has responses to compare.

    Args:
        dataset: Pairs or rankings in any layout that `to_preferences` knows, demonstrations, or prompts.
        tokenizer: The model's; None: tokens are estimated from words.
        progress: Receiver of progress.

    Raises:
        UserError: The data has none of these rows.
    """
    rows = dataset if isinstance(dataset, Dataset) else Dataset.from_list(list(dataset))
    if not len(rows):
        raise UserError("data: there are no rows.")
    kind = kind_of_rows(rows)
    some = rows.select([place * len(rows) // ROWS for place in range(ROWS)]) if len(rows) > ROWS else rows
    if kind != "pairs":
        return {"kind": kind, "rows": len(rows), "pairs": 0, **_plain_features(some, kind, tokenizer)}
    inspection = inspect_preferences(some, tokenizer, progress=progress)
    metrics, read = inspection.metrics, len(inspection.rows)
    lengths = metrics["size"]["lengths"]
    responses = [value for name, value in lengths.items() if name not in ("prompt", "prompt and longest response")]
    if lengths["prompt"] is None or None in responses:
        raise UserError("data: no row can be read; hf-align inspect names what is wrong.")
    bad = {row for finding in inspection.findings if finding.severity == "error" for row in finding.rows}
    agreement, margins = metrics["agreement"].get("mean"), metrics["margins"]["margins"]
    longer = metrics["margins"].get("length", {}).get("longer_better")
    factor = 1.0 if tokenizer is not None else TOKENS_PER_WORD
    contradicted = metrics["duplicates"]["rows_of_contradicted_pairs"] / read
    return {
        "kind": kind,
        "rows": len(rows),
        "pairs": round(len(rows) * read / len(some)),
        "completeness": 1 - len(bad) / read,
        "agreement": agreement,
        "noise": wrong_share(agreement) if agreement is not None else (contradicted / 2 or None),
        "margin_mean": None if margins is None else margins["mean"],
        "margin_variance": None if margins is None else margins["std"] ** 2,
        "clear_share": None if margins is None else margins["clear_share"],
        "prompt_diversity": metrics["duplicates"]["prompts"] / read,
        "longer_better": None if longer is None or math.isnan(longer) else longer,
        "prompt_tokens": factor * lengths["prompt"]["mean"],
        "response_tokens": factor * float(np.mean([each["mean"] for each in responses])),
        "longest_prompt": math.ceil(factor * lengths["prompt"]["max"]),
        "longest_response": math.ceil(factor * max(each["max"] for each in responses)),
    }


def wrong_share(agreement: float) -> float:
    """The share of labels against the majority, if two people agree so often.

    Two who choose the first response with probability p agree with a = p² + (1-p)²; the less likely choice has 1 - p.

    Example:
        >>> from hf_align.planning.selection.features import wrong_share
        >>> round(wrong_share(0.9**2 + 0.1**2), 6), wrong_share(0.4)
        (0.1, 0.5)
    """
    return (1 - math.sqrt(max(0.0, 2 * agreement - 1))) / 2


COMPARED = {"chosen", "rejected", "responses", "response_a", "response_b", "label", "votes"}
"""Columns of rows that are pairs or rankings, or were meant to be."""


def kind_of_rows(rows: Dataset) -> Kind:
    """Whether rows have responses to compare, demonstrations, or prompts alone.

    Demonstrations may have any layout that `hf-align sft` reads, and other columns besides. Rows that are nothing known
    count as pairs, whose inspection says what they have.
    """
    columns = set(rows.column_names)
    if columns & COMPARED:
        return "pairs"
    if columns in ({"text"}, {"messages"}) or {"prompt", "completion"} <= columns:
        return "demonstrations"
    try:
        recognise(rows.column_names, first_rows(rows))
        return "pairs"
    except UserError:
        pass
    if find_layout(rows.column_names) is not None:
        return "demonstrations"
    return "prompts" if "prompt" in columns else "pairs"


def _plain_features(rows: Dataset, kind: Kind, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, Any]:
    """Lengths and diversity of rows that nothing is compared in."""
    texts = _demonstrated(rows) if kind == "demonstrations" else [(text, "") for text in map(_text, rows["prompt"])]
    if not texts:
        raise UserError("data: no row can be read; hf-align sft says what is wrong with which.")
    prompts = _lengths([prompt for prompt, _ in texts], tokenizer)
    responses = _lengths([answer for _, answer in texts], tokenizer) if kind == "demonstrations" else [RESPONSE]
    unknown = ("agreement", "noise", "margin_mean", "margin_variance", "clear_share", "longer_better")
    prompted = any(prompt for prompt, _ in texts)
    return {
        **dict.fromkeys(unknown),
        "completeness": (len(texts) - (prompts.count(0) if prompted else 0)) / len(rows),
        "prompt_diversity": len({prompt for prompt, _ in texts}) / len(texts) if prompted else None,
        "prompt_tokens": float(np.mean(prompts)),
        "response_tokens": float(np.mean(responses)),
        "longest_prompt": max(prompts),
        "longest_response": max(responses),
    }


def _demonstrated(rows: Dataset) -> list[tuple[str, str]]:
    """Prompt ("" of plain text) and completion of each row that can be read."""
    layout = find_layout(rows.column_names)
    assert layout is not None
    texts = []
    for row in rows.with_format(None):
        try:
            shown = layout.read(dict(row))
        except RowProblem:
            continue
        texts.append((text_of(shown.prompt), text_of(shown.completion)))
    return texts


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else " ".join(str(turn.get("content")) for turn in prompt or [])


RESPONSE = 256
"""Tokens assumed of a response that isn't in the data."""


def _lengths(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    if tokenizer is None:
        return [math.ceil(TOKENS_PER_WORD * len(text.split())) for text in texts]
    return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
