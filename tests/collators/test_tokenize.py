"""A whole data set: columns, problems, truncation reports, and comparison with TRL's ids."""

import copy
import logging
import os
from types import SimpleNamespace

import pytest
from datasets import Dataset

from hf_align.collators import tokenize_preferences
from hf_align.errors import UserError

TEXTS = [
    ("The sky is", " blue.", " green, I think."),
    ("Question: 1 + 1?\nAnswer:", " 2", " 3"),
    ("Write a haiku about rain.\n", "Soft rain on the roof", "No."),
    ("Ünïcödé und 天气 👍:", " ja 👍", " nein 👎"),
]


def chat(prompt, chosen, rejected):
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def standard(prompt, chosen, rejected):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def trl_ids(rows, tokenizer):
    """The rows tokenised by TRL's DPOTrainer."""
    from trl.trainer.dpo_trainer import DPOTrainer

    args = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    owner = SimpleNamespace(_tokenizer=tokenizer)
    return DPOTrainer._prepare_dataset(owner, Dataset.from_list(rows), tokenizer, args, "train").to_list()  # pyright: ignore


def without_line_break(ids, tokenizer):
    """TRL keeps the template's text after the end of turn; here that is one line break."""
    line_break = tokenizer("\n")["input_ids"]
    return ids[:-1] if ids[-1:] == line_break else ids


@pytest.mark.parametrize("form", [standard, chat])
def test_ids_equal_trl_s_on_well_behaved_rows(tokenizer, form):
    rows = [form(*texts) for texts in TEXTS]
    ours, theirs = tokenize_preferences(rows, tokenizer).to_list(), trl_ids(rows, tokenizer)
    for row, other in zip(ours, theirs, strict=True):
        assert row["prompt_ids"] == other["prompt_ids"]
        for ids, column in zip(row["response_ids"], ("chosen_ids", "rejected_ids"), strict=True):
            assert ids == without_line_break(other[column], tokenizer)
            assert ids[-1] == tokenizer.eos_token_id


def test_ids_equal_trl_s_with_a_tokenizer_that_adds_bos(bos_tokenizer):
    rows = [standard("The sky is", " blue.", " green.")]
    other = trl_ids(rows, bos_tokenizer)[0]
    responses = [other["chosen_ids"], other["rejected_ids"]]
    expected = {"prompt_ids": other["prompt_ids"], "response_ids": responses}
    assert tokenize_preferences(rows, bos_tokenizer)[0] == expected


def test_only_ids_margin_and_weight_are_kept(tokenizer):
    rows = [standard(*texts) | {"margin": 0.5, "weight": 2, "source": "web", "id": 1} for texts in TEXTS]
    out = tokenize_preferences(Dataset.from_list(rows), tokenizer)
    assert sorted(out.column_names) == ["margin", "prompt_ids", "response_ids", "weight"]
    assert (out["margin"][:], out["weight"][:]) == ([0.5] * 4, [2] * 4)


@pytest.mark.parametrize("name", ["prompt_ids", "response_ids"])
def test_columns_named_like_the_trainer_s_own_are_refused(tokenizer, name):
    with pytest.raises(UserError, match=f"eval_dataset has a column {name}, which the trainer adds; rename or"):
        tokenize_preferences([standard(*TEXTS[0]) | {name: [1]}], tokenizer, name="eval_dataset")


def test_processes_change_nothing(tokenizer, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ)  # datasets leaves a copy, and rich goes on reading the one before
    rows = Dataset.from_list([standard(*texts) for texts in TEXTS])
    assert tokenize_preferences(rows, tokenizer, num_proc=2)[:] == tokenize_preferences(rows, tokenizer)[:]


def test_a_torch_formatted_data_set_is_tokenised_all_the_same(tokenizer):
    rows = Dataset.from_list([standard(*texts) | {"margin": 0.5} for texts in TEXTS])
    assert tokenize_preferences(rows.with_format("torch"), tokenizer)[:] == tokenize_preferences(rows, tokenizer)[:]


def test_rows_that_became_identical_are_named(tokenizer):
    same = standard("Say", " one two three four five", " one two three four six")
    rows = [standard(*TEXTS[0]), same, same]
    with pytest.raises(UserError) as caught:
        tokenize_preferences(rows, tokenizer, max_length=4, name="eval_dataset")
    assert str(caught.value) == (
        "eval_dataset: 2 rows have responses that are identical once cut to max_length (rows 1, 2); fix or drop them, "
        "or raise max_length where they were cut."
    )


def test_rows_of_the_same_ids_are_named(tokenizer):
    trims = copy.copy(tokenizer)
    trims.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'] | trim")
    with pytest.raises(UserError, match=r"1 row has responses that are identical once tokenised \(row 0\)"):
        tokenize_preferences([chat("Hi", "Yes ", "Yes")], trims)


def test_structural_problems_are_named_without_a_check_before(tokenizer):
    with pytest.raises(UserError, match=r"1 row has an empty chosen \(row 1\)"):
        tokenize_preferences([standard(*TEXTS[0]), standard("Hi", "", " b")], tokenizer)
    with pytest.raises(UserError, match="no column rejected"):
        tokenize_preferences([{"prompt": "Hi", "chosen": "a"}], tokenizer)


def test_truncation_is_reported_once_with_counts(tokenizer, caplog):
    prompt = "word" + " word" * 19 + " end"  # 21 tokens
    rows = [standard(prompt, " a b", " c"), standard(prompt, " a" * 12, " b"), standard("word", " a b", " c")]
    with caplog.at_level(logging.WARNING):
        out = tokenize_preferences(rows, tokenizer, max_length=12, max_prompt_length=20).to_list()
    assert [record.getMessage() for record in caplog.records] == [
        "train_dataset: of 3 rows, 2 have their prompt and 1 a response cut (max_length=12, max_prompt_length=20; a "
        "cut response ends without EOS)."
    ]
    lengths = [[len(ids) for ids in (row["prompt_ids"], *row["response_ids"])] for row in out]
    assert lengths == [[9, 3, 2], [1, 11, 2], [1, 3, 2]]
    assert [tokenizer.decode(row["prompt_ids"])[-4:] for row in out] == [" end", " end", "word"]
    ends = [[ids[-1] == tokenizer.eos_token_id for ids in row["response_ids"]] for row in out]
    assert ends == [[True, True], [False, True], [True, True]]


def test_nothing_is_reported_when_nothing_is_cut(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        tokenize_preferences([standard(*TEXTS[0])], tokenizer, max_length=12)
    assert not caplog.records


def test_impossible_limits_are_refused_before_anything_is_tokenised(tokenizer):
    with pytest.raises(UserError, match="max_length must be at least 2"):
        tokenize_preferences([standard(*TEXTS[0])], tokenizer, max_length=1)
