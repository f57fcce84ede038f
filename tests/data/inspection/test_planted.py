"""Planted defects are found in the right rows, and clean rows have none: the acceptance test of inspections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from hf_align.data.embedded.rows import make_pairs
from hf_align.data.inspection.inspect import inspect_preferences
from hf_align.data.inspection.result import Inspection
from tests.data.inspection.planted import (
    GROUPS,
    SINGLE,
    Planted,
    as_messages,
    clean_rankings,
    clean_rows,
    planted,
)

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
RECALL = PRECISION = 0.99


def inspected(data: Planted, tokenizer: PreTrainedTokenizerBase | None = None) -> dict[str, set[int]]:
    """Rows by kind of finding."""
    inspection = inspect_preferences(data.rows, tokenizer, eval_dataset=data.held_out)
    found: dict[str, set[int]] = {}
    for finding in inspection.findings:
        found.setdefault(finding.kind, set()).update(finding.rows)
    return found


def missed(data: Planted, found: dict[str, set[int]]) -> dict[str, str]:
    """By kind, what of recall and precision is below the mark."""
    wrong = {}
    for kind, rows in data.truth.items():
        got = found.get(kind, set())
        recall, precision = len(got & rows) / len(rows), len(got & rows) / max(1, len(got))
        if recall < RECALL or precision < PRECISION:
            wrong[kind] = f"missed {sorted(rows - got)}, wrong {sorted(got - rows)}"
    return wrong


@pytest.mark.parametrize("chat", [False, True], ids=["text", "conversations"])
def test_planted_defects_are_found_in_the_right_rows(chat: bool, make_tokenizer: Callable[..., Any]):
    data = planted(400, seed=5, chat=chat)
    assert len(data.truth) == len(SINGLE) + len(GROUPS) == 28
    assert min(map(len, data.truth.values())) >= 4
    assert missed(data, inspected(data, make_tokenizer(chat_template=TEMPLATE))) == {}


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True], ids=["text", "conversations"])
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_28_kinds_of_defects_in_a_percent_of_the_rows_each_are_found(
    seed: int, chat: bool, make_tokenizer: Callable[..., Any]
):
    data = planted(2400, seed=seed, chat=chat)
    assert min(map(len, data.truth.values())) >= 24
    assert missed(data, inspected(data, make_tokenizer(chat_template=TEMPLATE))) == {}


def spoken(inspection: Inspection) -> dict[str, int]:
    """Errors and warnings with their numbers of rows."""
    return {each.kind: len(each.rows) for each in inspection.findings if each.severity != "note"}


@pytest.mark.parametrize("chat", [False, True], ids=["text", "conversations"])
def test_clean_rows_have_no_findings(chat: bool, make_tokenizer: Callable[..., Any]):
    rows = clean_rows(1100, seed=5)
    rows = list(map(as_messages, rows)) if chat else rows
    inspection = inspect_preferences(rows[:1000], make_tokenizer(chat_template=TEMPLATE), eval_dataset=rows[1000:])
    assert spoken(inspection) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_embedded_data_as_it_is_has_no_errors(seed: int):
    for rows in (
        make_pairs("train", 1000, seed),
        make_pairs("train", 1000, seed, openings=0),
        clean_rankings(1000, seed),
    ):
        assert inspect_preferences(rows).errors == 0
