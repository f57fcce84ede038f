"""Rows of each layout as prompts with responses."""

from typing import Any

import pytest
from datasets import Dataset

from hf_align.collators.encoding import PairEncoder
from hf_align.collators.rows import RowProblem
from hf_align.collators.scorable import Reader, layout_of, prepare_rows, read_any_prompt
from hf_align.collators.truncation import Limits
from hf_align.errors import UserError
from tests.tiny import tiny_tokenizer

ASK = [{"role": "user", "content": "Say hi."}]
HI, NO = ([{"role": "assistant", "content": text}] for text in ("Hi!", "No."))
ROWS: dict[str, tuple[dict[str, Any], list[tuple[Any, Any]]]] = {
    "pair": ({"prompt": "Say hi.", "chosen": " Hi!", "rejected": " No."}, [("Say hi.", " Hi!"), ("Say hi.", " No.")]),
    "pair of one text": ({"prompt": "a", "chosen": "b", "rejected": "b"}, [("a", "b"), ("a", "b")]),
    "implicit text": ({"chosen": "Say hi. Hi!", "rejected": "Say hi. No."}, [("Say hi.", " Hi!"), ("Say hi.", " No.")]),
    "implicit turns": ({"chosen": ASK + HI, "rejected": ASK + NO}, [(ASK, HI), (ASK, NO)]),
    "repeated turns": ({"prompt": ASK, "chosen": ASK + HI, "rejected": ASK + NO}, [(ASK, HI), (ASK, NO)]),
    "text beside turns": ({"prompt": "Say hi.", "chosen": ASK + HI, "rejected": ASK + NO}, [(ASK, HI), (ASK, NO)]),
    "comparison": ({"prompt": "a", "response_a": "b", "response_b": "c"}, [("a", "b"), ("a", "c")]),
    "ranking": ({"prompt": "a", "responses": ["b", "c", "d"]}, [("a", "b"), ("a", "c"), ("a", "d")]),
    "ranked turns": ({"prompt": ASK, "responses": [HI, ASK + NO]}, [(ASK, HI), (ASK, NO)]),
    "response": ({"prompt": "a", "response": "b", "completion": "c"}, [("a", "b")]),
    "completion": ({"prompt": ASK, "completion": "Hi!"}, [(ASK, HI)]),
    "conversation": ({"messages": [*ASK, *HI, *ASK, *NO]}, [([*ASK, *HI, *ASK], NO)]),
}


@pytest.mark.parametrize("name", ROWS)
def test_each_layout_is_read_as_prompts_with_responses(name: str) -> None:
    row, expected = ROWS[name]
    layout = layout_of(list(row))
    assert layout.read(row) == expected
    assert layout.read({**row, "tools": None, "other": 1}) == expected


def test_columns_are_named_after_what_was_scored() -> None:
    def values(columns: list[str], scores: list[list[float]]) -> dict[str, Any]:
        return layout_of(columns).values("reward", scores)

    assert values(["prompt", "response"], [[1.0], [2.0]]) == {"reward": [1.0, 2.0]}
    assert values(["chosen", "rejected"], [[1.0, 2.0]]) == {"reward_chosen": [1.0], "reward_rejected": [2.0]}
    assert values(["prompt", "response_a", "response_b"], [[1.0, 2.0]]) == {"reward_a": [1.0], "reward_b": [2.0]}
    assert values(["prompt", "responses"], [[1.0, 2.0, 3.0], [4.0]]) == {"rewards": [[1.0, 2.0, 3.0], [4.0]]}
    with pytest.raises(UserError, match=r"data has the columns text, and none of these to score: chosen \+ rejected;"):
        layout_of(["text"])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "a", "response": " "}, "an empty response"),
        ({"prompt": None, "response": "b"}, "no prompt"),
        ({"prompt": "a", "responses": []}, "no responses"),
        ({"prompt": "a", "responses": ["b", ""]}, "an empty response"),
        ({"prompt": "a", "responses": "b"}, "responses that are no list"),
        ({"prompt": "a", "chosen": "b", "rejected": HI}, "text on one side and messages on the other"),
        ({"prompt": "a", "response": ASK + HI}, "a response that doesn't begin with an assistant message"),
        ({"messages": ASK}, "messages that don't end with an assistant message"),
        ({"messages": HI}, "messages that don't end with an assistant message after another one"),
    ],
)
def test_rows_without_a_response_to_a_prompt_are_refused(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(RowProblem, match=f"^{problem}"):
        layout_of(list(row)).read(row)


def test_a_prompt_to_answer_is_found_in_any_layout() -> None:
    assert read_any_prompt({"prompt": "a", "messages": ASK}) == "a"
    assert read_any_prompt({"messages": ASK}) == read_any_prompt({"messages": ASK + HI}) == ASK
    assert read_any_prompt({"chosen": "Say hi. Hi!", "rejected": "Say hi. No."}) == "Say hi."
    for row in ({"messages": HI}, {"response": "b"}, {"prompt": None}):
        with pytest.raises(RowProblem, match="prompt"):
            read_any_prompt(row)


def read(rows: list[dict[str, Any]], limits: Limits = Limits(), **settings: Any) -> list[dict[str, Any]]:  # noqa: B008
    reader = Reader(layout_of(list(rows[0])), PairEncoder(tiny_tokenizer()), limits, **settings)
    return prepare_rows(Dataset.from_list(rows), reader).to_list()


def test_responses_get_the_tokens_that_the_reward_model_gives_them() -> None:
    encoder = PairEncoder(tiny_tokenizer())
    for row, samples in ROWS.values():
        (record,) = read([row])
        expected = [encoder.prompt_and_response(*sample) for sample in samples]
        assert list(zip(record["prompt_ids"], record["response_ids"], strict=True)) == expected
        assert record["count"] == len(samples) and record["unfinished"] == 0
        assert record["length"] == max(len(prompt) + len(response) for prompt, response in expected)
    ((text,), (turns,)) = (read([{"prompt": "a", "response": "b"}], as_turns=turns) for turns in (False, True))
    assert len(turns["prompt_ids"][0]) > len(text["prompt_ids"][0]) == 1


def test_a_response_that_is_not_finished_gets_no_end() -> None:
    ended, cut, both = read(
        [
            {"prompt": "a", "responses": ["b", "c"], "finished": finished}
            for finished in (None, [True, False], [False] * 2)
        ]
    )
    (b, c), end = ended["response_ids"], 258
    assert b[-1] == c[-1] == end
    assert cut["response_ids"] == [b, c[:-1]] and cut["unfinished"] == 1
    assert both["response_ids"] == [b[:-1], c[:-1]] and both["unfinished"] == 2
    (other,) = read([{"prompt": "a", "response": "b", "finished": "2024"}])
    assert other["unfinished"] == 0


def test_too_long_rows_lose_the_beginning_of_the_prompt_then_the_end_of_the_responses() -> None:
    short, long = read(
        [{"prompt": "abcd", "responses": ["e", "fg"]}, {"prompt": "ab", "responses": ["cdefg"]}], Limits(5)
    )
    tokenizer = tiny_tokenizer()
    assert [tokenizer.decode(ids) for ids in short["prompt_ids"]] == ["cd", "cd"], "cut alike, as the longest needs"
    assert [tokenizer.decode(ids) for ids in short["response_ids"]] == ["e<|im_end|>", "fg<|im_end|>"]
    assert (short["prompts_cut"], short["responses_cut"]) == (2, 0)
    assert (long["prompts_cut"], long["responses_cut"]) == (1, 1)
    assert [tokenizer.decode(ids) for ids in (*long["prompt_ids"], *long["response_ids"])] == ["b", "cdef"]


def test_bad_rows_are_named_together() -> None:
    rows = [{"prompt": "a", "response": "b"}, {"prompt": "", "response": "b"}, {"prompt": "a", "response": ""}]
    message = r"^data: 1 row has an empty prompt \(row 1\); 1 row has an empty response \(row 2\); fix or drop them"
    with pytest.raises(UserError, match=message):
        read(rows)
