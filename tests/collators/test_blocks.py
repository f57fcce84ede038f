"""Rows read in blocks are checked, numbered and tokenised as those of a whole data set."""

from __future__ import annotations

from typing import Any

import pytest

from hf_align.collators import find_bad_rows, tokenize_preferences
from hf_align.collators.blocks import BlockReader
from hf_align.collators.checks import describe
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.truncation import Limits
from hf_align.errors import UserError
from tests.tiny import tiny_tokenizer

PAIR: dict[str, Any] = {"prompt": "It was", "chosen": " good", "rejected": " bad", "margin": 1.5}
RANKING: dict[str, Any] = {"prompt": "It was", "responses": [" a", " bc", " d"], "scores": [1.0, None, 3.0]}
TASKS = {"tone": "binary"}


def reader(rows: list[dict[str, Any]], **options: Any) -> BlockReader:
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    return BlockReader(columns, PairEncoder(tiny_tokenizer()), Limits(options.pop("max_length", None)), **options)


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ([PAIR, PAIR | {"margin": 2.0, "chosen": " so very good"}], {"max_length": 10}),
        ([PAIR | {"votes": [1, 0, 1], "weight": 2.0}, PAIR | {"votes": [0.5], "weight": 1.0}], {}),
        ([PAIR | {"label": 0.25}], {"plain": True}),
        ([RANKING | {"tone": [1, None, 0]}, RANKING | {"tone": None}], {"tasks": TASKS}),
        ([{side: [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": side}] for side in
           ("chosen", "rejected")}], {}),
    ],
    ids=["cut", "votes", "plain", "ranking", "conversation"],
)  # fmt: skip
def test_tokenized_rows_are_those_of_a_data_set(rows: list[dict[str, Any]], options: dict[str, Any]):
    whole = tokenize_preferences(rows, tiny_tokenizer(), **options)
    read = reader(rows, **options)
    for ours, theirs in zip(read.tokenize(read.check(rows, 0), range(len(rows))), map(dict, whole), strict=True):
        assert {name: str(value) for name, value in ours.items()} == {name: str(v) for name, v in theirs.items()}


@pytest.mark.parametrize(
    "change",
    [
        {"chosen": ""},
        {"rejected": " good"},
        {"prompt": None},
        {"margin": -1.0, "chosen": None},
        {"margin": float("nan")},
    ],
    ids=str,
)
def test_bad_rows_are_named_in_the_words_for_a_data_set_with_their_numbers(change: dict[str, Any]):
    bad = PAIR | change
    expected = {problem: [41] for problem in find_bad_rows([PAIR, bad]).bad}
    with pytest.raises(UserError) as caught:
        reader([PAIR]).check([PAIR, bad, PAIR], 40)
    assert str(caught.value).startswith(f"train_dataset: {describe(expected)}; fix or drop them: hf-align inspect")


def test_later_rows_have_the_columns_of_the_first():
    read = reader([PAIR], plain=True)
    assert read.check([{**PAIR, "note": 1, "label": 0.5}], 0) == [PAIR]  # neither is read
    with pytest.raises(UserError, match=r"1 row has no margin \(row 7\)"):
        read.check([{name: PAIR[name] for name in ("prompt", "chosen", "rejected")}], 7)
    with pytest.raises(UserError, match=r"1 row has a weight, which the stream's first rows don't have \(row 8\)"):
        read.check([PAIR, PAIR | {"weight": 1.0}], 7)
    with pytest.raises(UserError, match=r"1 row has another type than dict \(str\) \(row 7\)"):
        read.check(["text"], 7)


def test_what_only_tokens_tell_is_refused_with_the_numbers():
    rows = [PAIR, PAIR | {"chosen": " good film", "rejected": " good movie"}]
    with pytest.raises(UserError, match=r"identical once cut to max_length \(row 9\); .*raise max_length"):
        reader(rows, max_length=7).tokenize(rows, [5, 9])
    odd = reader(rows, problem_of=lambda row: "an odd margin" if row["margin"] == 3 else "")
    with pytest.raises(UserError, match=r"train_dataset: 1 row has an odd margin \(row 9\)"):
        odd.tokenize([PAIR, PAIR | {"margin": 3}], [5, 9])
