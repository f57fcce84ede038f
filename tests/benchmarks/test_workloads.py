from __future__ import annotations

import pytest

from benchmarks.workloads import WORKLOADS, long_prompt_rows, preference_rows, prompt_rows
from hf_align.data import load_ratings


@pytest.mark.parametrize(("name", "prompt", "response"), [("chat", 110, 50), ("summary", 220, 28), ("long", 110, 160)])
def test_rows_have_the_words_that_were_asked_for(name: str, prompt: int, response: int):
    rows = preference_rows(WORKLOADS[name], 5)
    assert len(rows) == 5
    for row in rows:
        assert [len(row[side].split()) for side in ("prompt", "chosen", "rejected")] == [prompt, response, response]
        assert row["chosen"] != row["rejected"]


def test_rows_are_real_sentences_and_the_same_each_time():
    rows = preference_rows(WORKLOADS["chat"], 3, seed=1)
    assert rows == preference_rows(WORKLOADS["chat"], 3, seed=1)
    assert rows != preference_rows(WORKLOADS["chat"], 3, seed=2)
    texts = {" ".join(text.split()) for text in load_ratings("train")["text"]}
    assert any(rows[0]["prompt"].startswith(text) for text in texts)


def test_prompts_are_chat_messages_of_the_length_asked_for():
    assert len({row["prompt"][0]["content"] for row in prompt_rows(16)}) == 16
    rows = long_prompt_rows(70, 3)
    assert [len(row["prompt"][0]["content"].split()) for row in rows] == [70, 70, 70]
