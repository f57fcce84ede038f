"""Rows of public benchmarks: recognised by their columns, counted and written as their scripts do."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from hf_align.collators import tokenize_preferences
from hf_align.collators.encoding import PairEncoder
from hf_align.data.comparison_rows import read_comparisons
from hf_align.errors import UserError
from hf_align.evaluation import reward_report
from hf_align.evaluation.benchmark_rows import BENCHMARKS, gained, output_rows, recognise, result_json, with_prompt
from tests.tiny import tiny_tokenizer

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
TURNS = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]
OTHER = [{"role": "assistant", "content": "b"}]
ONE: list[dict[str, Any]] = [{**PAIR, "subset": "hep-go"}, {**PAIR, "subset": "donotanswer"}]
SECOND: list[dict[str, Any]] = [
    {"id": str(n), "prompt": f"p{n}", "chosen": ["a"], "rejected": ["b", "c", "d"], "subset": "Math", "num_correct": 1}
    | {"total_completions": 4}
    for n in range(3)
]
STYLED: list[dict[str, Any]] = [
    {"prompt": f"p{n}", "chosen": ["a", "a!", "*a*"], "rejected": ["b", "b!", "*b*"], "domain": domain}
    for n, domain in enumerate(["chat", "math"])
]


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (ONE, "RewardBench"),
        (
            [{"chosen": TURNS, "rejected": [*TURNS[:1], {"role": "assistant", "content": "b"}], "subset": "hep-go"}],
            "RewardBench",
        ),
        (SECOND, "RewardBench 2"),
        (STYLED, "RM-Bench"),
        ([PAIR], None),
        ([{**PAIR, "subset": "mine"}], None),
        ([{"prompt": "p", "response": "a", "rating": 1.0}], None),
    ],
)
def test_a_benchmark_is_recognised_by_its_columns(rows: list[dict[str, Any]], name: str | None) -> None:
    found = recognise(Dataset.from_list(rows))
    assert (found.name if found else None) == name


def test_rewardbench_2_rows_have_as_many_chosen_responses_as_they_say() -> None:
    rows = [SECOND[0], {**SECOND[1], "num_correct": 2}, {**SECOND[2], "chosen": ["a", "e"]}]
    with pytest.raises(UserError, match=r"2 of RewardBench 2's rows .* \(row 1: num_correct 2, 1 chosen\)"):
        reward_report(lambda prompts, responses: [0.0] * len(prompts), rows)
    assert recognise(Dataset.from_list([SECOND[0], {**rows[2], "num_correct": 2}]))


def test_a_prompt_may_be_called_question_or_input() -> None:
    for other in ("question", "input"):
        rows = Dataset.from_list([{other: "p", "chosen": "a", "rejected": "b"}])
        assert with_prompt(rows).column_names == ["prompt", "chosen", "rejected"]
    both = Dataset.from_list([{**PAIR, "input": "x"}])
    assert with_prompt(both).column_names == both.column_names


def test_rows_count_as_in_each_benchmark() -> None:
    assert gained(BENCHMARKS["RewardBench"], ONE, [[1.0, 0.0], [1.0, 1.0]]) == [1.0, 0.0]
    scores = [[2.0, 1.0, 0.0, 0.0], [2.0, 2.0, 2.0, 0.0], [1.0, 2.0, 0.0, 0.0]]
    assert gained(BENCHMARKS["RewardBench 2"], SECOND, scores) == pytest.approx([1.0, 1 / 3, 0.0])
    ties = [{**SECOND[0], "subset": "Ties", "num_correct": 2}]
    assert gained(BENCHMARKS["RewardBench 2"], ties, [[3.0, 2.0, 1.0, 0.0]]) == [1.0]
    assert gained(BENCHMARKS["RewardBench 2"], ties, [[3.0, 1.0, 2.0, 0.0]]) == [0.0]
    styled = [[1.0, 2.0, 3.0, 0.0, 1.0, 2.0]] * 2  # 0 < all three; 1 < 2, 3; 2 < 3
    assert gained(BENCHMARKS["RM-Bench"], STYLED, styled) == pytest.approx([6 / 9] * 2)


def test_the_result_has_the_keys_of_the_script_and_agrees_with_the_report() -> None:
    benchmark, scores = BENCHMARKS["RM-Bench"], [[1.0, 2.0, 3.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]
    result = result_json(benchmark, STYLED, scores, model="m", chat_template="t")
    assert result == {
        **{"accuracy": pytest.approx(3 / 9), "num_prompts": 2, "model": "m", "ref_model": None, "tokenizer": "m"},
        **{"chat_template": "t", "extra_results": {"chat": pytest.approx(2 / 3), "math": 0.0}},
    }
    report = reward_report(None, STYLED, scores=scores, resamples=20)
    assert report.facts["benchmark"]["table"][0] == ("overall", pytest.approx(3 / 9))
    assert report.scores == scores
    assert "RM-Bench, by its own formula" in str(report) and "RM-Bench, by its own formula" in report.to_html()
    (first, _) = output_rows(benchmark, STYLED, scores)
    assert first["scores_rejected"] == [0.0, 1.0, 2.0] and first["text_chosen"] == ["a", "a!", "*a*"]
    assert first["domain"] == "chat" and "chosen" not in first
    second = reward_report(None, SECOND, scores=[[2.0, 1.0, 0.0, 0.0]] * 3, resamples=20)
    assert second.facts["benchmark"]["figures"]["overall"] == 1.0
    wide = output_rows(BENCHMARKS["RewardBench 2"], SECOND, [[2.0, 1.0, 0.0, 0.0]] * 3)
    assert wide[0]["scores_chosen"] == [2.0] and len(wide[0]["scores_rejected"]) == 3


def test_evaluation_gives_rows_the_ids_of_training() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ tools[0].name }} {{ mood }} " + str(tokenizer.chat_template)
    prefilled = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well,"}]
    options = {"tools": [{"name": "clock"}], "chat_template_kwargs": {"mood": "calm"}}
    answers = [[{"role": "assistant", "content": text}] for text in (" yes", " no")]
    for row in (
        {"prompt": prefilled, "chosen": answers[0], "rejected": answers[1], **options},
        {"prompt": "Hi", "chosen": " yes", "rejected": " no"},
        {"chosen": "Say hi. Hi!", "rejected": "Say hi. No."},
    ):
        (trained,) = tokenize_preferences([row], tokenizer).to_list()
        encoder = PairEncoder(tokenizer)
        read = [
            encoder.prompt_and_response(text.prompt, text.text, dict(text.options))
            for text in read_comparisons([row]).texts
        ]
        assert read == [(trained["prompt_ids"], ids) for ids in trained["response_ids"]]
