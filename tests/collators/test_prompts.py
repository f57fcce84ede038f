"""Prompts to generate from have the ids of inference, and bad rows are named."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from hf_align.collators import encode_prompts, tokenize_prompts
from hf_align.errors import UserError
from tests.tiny import tiny_tokenizer

CHAT = [{"role": "user", "content": "hi"}]


def test_messages_end_with_the_generation_prompt_and_columns_stay():
    tokenizer = tiny_tokenizer()
    data = tokenize_prompts([{"prompt": CHAT, "topic": "greeting", "weight": 2}], tokenizer)
    expected = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(data[0]["prompt_ids"]) == expected
    assert data.column_names == ["prompt", "topic", "weight", "prompt_ids"]
    assert data[0]["prompt"] == CHAT and data[0]["topic"] == "greeting"


def test_an_assistant_message_at_the_end_is_continued():
    tokenizer = tiny_tokenizer()
    data = tokenize_prompts([{"prompt": [*CHAT, {"role": "assistant", "content": "Well,"}]}], tokenizer)
    assert str(tokenizer.decode(data[0]["prompt_ids"])).endswith("<|im_start|>assistant\nWell,")


def test_prompts_are_encoded_alike_with_and_without_a_data_set():
    tokenizer = tiny_tokenizer()
    prompts = [CHAT, [*CHAT, {"role": "assistant", "content": "Well,"}]]
    data = tokenize_prompts([{"prompt": prompt} for prompt in prompts], tokenizer)
    assert encode_prompts(tokenizer, prompts) == data["prompt_ids"][:]
    assert encode_prompts(tokenizer, ["ab"]) == [[64, 65]]
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(UserError, match=r"prompts: 2 rows have messages that .* refuses .*\(rows 1, 2\)"):
        encode_prompts(tokenizer, ["a", CHAT, CHAT])


def test_text_gets_no_special_tokens_that_the_tokenizer_does_not_add():
    assert tokenize_prompts(Dataset.from_list([{"prompt": "ab"}]), tiny_tokenizer())[0]["prompt_ids"] == [64, 65]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"prompt": "a"}, {"prompt": ""}, {"prompt": "  "}],
            r"train_dataset: 2 rows have an empty prompt \(rows 1, 2\)",
        ),
        ([{"prompt": "a"}, {"prompt": None}], r"1 row has no prompt \(row 1\)"),
        ([{"prompt": [{"role": "user"}]}], "message without content"),
        ([{"prompt": 3}], "neither text nor a list of messages"),
        ([{"question": "a"}], "no column prompt: it has question"),
        ([{"prompt": "a", "prompt_ids": [1]}], "prompt_ids, which the trainer adds"),
        ([{"prompt": "a", "response_ids": [1]}], "response_ids, which the trainer adds"),
        ([{"prompt": "a", "finished": True}], "finished, which the trainer adds; rename or remove it"),
        ([{"prompt": "a"}, {"prompt": "b", "seed": 10**400}], r"1 row has a seed of more than 64 bits \(row 1\)"),
        ([], "train_dataset has no rows"),
    ],
)
def test_bad_rows_are_named(rows: list[dict[str, Any]], message: str):
    with pytest.raises(UserError, match=message):
        tokenize_prompts(rows, tiny_tokenizer())


def test_the_columns_of_a_data_set_stay_whatever_their_names():
    row = {"prompt": "a", "problem": "1 + 1", "cut": "no", "index": 3, "ref_logps": [0.5]}
    assert tokenize_prompts([row], tiny_tokenizer())[0] == row | {"prompt_ids": [64]}


def test_a_long_prompt_keeps_its_end_and_a_warning_counts_it(caplog):
    with caplog.at_level("WARNING", logger="hf_align"):
        data = tokenize_prompts([{"prompt": "abc"}, {"prompt": "d"}], tiny_tokenizer(), max_prompt_length=2)
    assert data["prompt_ids"][:] == [[65, 66], [67]]
    assert "1 of 2 prompts are cut to their last 2 tokens" in caplog.text
