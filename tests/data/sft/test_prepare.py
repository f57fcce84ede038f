"""Rows are standardised, cleaned, filtered and drawn; nothing good is lost, and every loss is accounted for."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hf_align.collators.demonstrations import read_demonstrations
from hf_align.data import SFTReport, prepare_sft
from hf_align.data.embedded.ratings import load_ratings
from hf_align.data.embedded.rows import make_pairs
from hf_align.data.sft.quality import parts_of, quality_of
from hf_align.errors import UserError


def clean_rows(count: int) -> list[dict[str, Any]]:
    """Sentences that people wrote, as answers to different questions."""
    texts = [text for text in load_ratings("train")["text"][:3000] if quality_of(parts_of(text))[0] > 0.6]
    return [{"question": f"What was said about film {n}?", "answer": text} for n, text in enumerate(texts[:count])]


def reasons(report: SFTReport) -> dict[tuple[str, int], str]:
    return {(each.place.dataset, each.place.row): each.reason for each in report.dropped}


def texts_of(data: Dataset) -> list[str]:
    return [messages[-1]["content"] for messages in data["messages"]]


def test_clean_rows_are_all_kept_as_they_are() -> None:
    rows = clean_rows(1000)
    report = SFTReport()
    data = prepare_sft(rows, report=report)
    assert texts_of(data) == [row["answer"] for row in rows] and not report.changed
    assert min(data["quality_score"]) > 0.6 and set(data["source"]) == {"dataset"}


def test_planted_defects_are_dropped_or_repaired_for_the_right_reason() -> None:
    rows = clean_rows(300)
    expected: dict[tuple[str, int], str] = {}

    def plant(reason: str, row: dict[str, Any]) -> None:
        expected["dataset", len(rows)] = reason
        rows.append(row)

    for number in range(10):
        question, answer = rows[number]["question"], rows[number]["answer"]
        words, near = rows[20 + number]["answer"].split(), rows[40 + number]
        plant("duplicate", {"question": question.upper(), "answer": f" {answer}\r\n"})
        plant("near_duplicate", {**near, "answer": f"{near['answer'].rstrip('.')}, ok?"})
        plant("unreadable", {"question": f"A question {number}?", "answer": ""})
        plant("empty", {"question": f"A question {number}?", "answer": "&#8203;&nbsp;"})
        plant("quality", {"question": f"A question {number}?", "answer": " ".join(words[:3] * 9)})
        plant("quality", {"question": f"B question {number}?", "answer": f"{number} \ufffd\ufffd {answer}"})
        plant("contaminated", {"question": f"Held out {number}?", "answer": " ".join(reversed(words))})
    held_out = [{"question": f"held  out {number}?", "answer": "Anything."} for number in range(10)]
    report = SFTReport()
    data = prepare_sft(rows, held_out, report=report)
    found = reasons(report)
    # A near duplicate stays in place of the row that it repeats if it is the longer one.
    near = {place for place, reason in found.items() if reason == "near_duplicate"}
    assert {place: reason for place, reason in found.items() if place not in near} == {
        place: reason for place, reason in expected.items() if reason != "near_duplicate"
    }
    assert near <= {("dataset", 40 + n) for n in range(10)} | {p for p, r in expected.items() if r == "near_duplicate"}
    assert len(near) == 10 and len(data) == 300
    assert sum(report.reasons.values()) == len(rows) - len(data)
    assert str(report).splitlines()[1].split() == "dropped: can't be read 10 dataset 302, 309, 316, 323, 330, …".split()


def test_preparing_twice_changes_nothing() -> None:
    rows = clean_rows(60)
    rows += [
        {**rows[0], "answer": "Tom &amp; Jerry \r\n"},
        rows[3],
        {"question": "?", "answer": "no no no no no no no"},
    ]
    rows = [{**row, "kind": "abc"[n % 7 % 3]} for n, row in enumerate(rows)]
    once = prepare_sft(rows, balance="kind", name="films")
    report = SFTReport()
    twice = prepare_sft(once, balance="kind", report=report)
    assert twice.to_list() == once.to_list() and not report.dropped and not report.changed
    assert set(twice["source"]) == {"films"}


def test_the_order_of_the_rows_decides_only_about_the_order_of_the_result() -> None:
    rows = clean_rows(80)
    rows += [{**row, "answer": row["answer"].upper()} for row in rows[:5]]
    rows += [{**row, "answer": row["answer"].rstrip(".!") + " indeed"} for row in rows[10:20]]
    rows = [{**row, "kind": "ab"[n % 5 > 3]} for n, row in enumerate(rows)]
    results = []
    for seed in range(3):
        shuffled = random.Random(seed).sample(rows, len(rows))
        data = prepare_sft(shuffled, balance="kind", ratio=2)
        results.append(sorted(text.casefold() for text in texts_of(data)))
    assert results[0] == results[1] == results[2]


def test_data_sets_of_different_layouts_become_one_with_their_sources(tmp_path: Path) -> None:
    alpaca = [{"instruction": "Name a prime.", "input": "", "output": "Seven.", "id": 1}]
    sharegpt = [
        {"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello there."}], "id": "x"}
    ]
    pairs = make_pairs("validation", 20, 0)
    report = tmp_path / "report.json"
    data = prepare_sft({"alpaca": alpaca, "sharegpt": sharegpt, "pairs": pairs}, duplicates=None, report=report)
    assert data.column_names[:1] == ["messages"] and "id" not in data.column_names, "a column of two types"
    assert [data["source"][:].count(name) for name in ("alpaca", "sharegpt", "pairs")] == [1, 1, 20]
    assert texts_of(data)[2:] == [chosen[-1]["content"] for chosen in pairs["chosen"]]
    assert data["margin"][2:] == pairs["margin"][:] and data["margin"][0] is None
    read_demonstrations(data, "train_dataset")
    saved = json.loads(report.read_text())
    assert saved["sources"]["pairs"] == {"layout": "pairs, of which the better response", "rows": 20, "kept": 20}


def test_scores_come_from_a_column_or_a_function_and_limit_what_is_kept() -> None:
    rows = [{"prompt": "A film is", "completion": f" {text}", "stars": stars, "source": "web" if stars else None}
            for text, stars in (("fun.", 1.0), ("a joy to see.", 0.7), ("long.", 0.0))]  # fmt: skip
    data = prepare_sft(rows, quality="stars", min_quality=0.7)
    assert data["quality_score"][:] == [1.0, 0.7] and data["source"][:] == ["web", "web"]
    seen: list[dict[str, Any]] = []

    def longest(batch: list[dict[str, Any]]) -> list[float]:
        seen.extend(batch)
        return [min(1.0, len(row["completion"]) / 10) for row in batch]

    report = SFTReport()
    data = prepare_sft(rows, quality=longest, min_quality=0.6, report=report)
    assert data["completion"][:] == [" a joy to see.", " long."] and seen[0]["stars"] == 1.0
    assert reasons(report) == {("dataset", 0): "quality"} and report.options["quality"] == "longest"
    assert data["source"][1] == "dataset"
    for scores in ([1.0], [1.0, 2.0, 0.5], [1.0, None, 0.5], [1.0, float("nan"), 0.5]):
        with pytest.raises(UserError, match="quality"):
            prepare_sft(rows, quality=lambda _, scores=scores: scores)


def test_a_row_of_the_evaluation_set_is_kept_out_by_its_prompt_or_as_a_whole(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"question": "Write a tweet.", "answer": answer} for answer in ("Rain again today.", "My cat sings.")]
    held_out = [
        {
            "messages": [
                {"role": "user", "content": "Write a  TWEET."},
                {"role": "assistant", "content": "My cat sings."},
            ]
        }
    ]
    with pytest.raises(UserError, match=r"none of 2 rows is left \(2 contaminated\)"):
        prepare_sft(rows, held_out)
    assert "2 of 2 rows have a prompt of eval_dataset" in caplog.text and "contamination='row'" in caplog.text
    assert texts_of(prepare_sft(rows, held_out, contamination="row")) == ["Rain again today."]


def test_tools_go_along() -> None:
    tools = [{"type": "function", "function": {"name": "clock", "parameters": {}}}]
    rows = [
        {
            "messages": [{"role": "user", "content": "Time?"}, {"role": "assistant", "content": "Noon it is."}],
            "tools": tools,
        }
    ]
    data = prepare_sft([*rows, {**rows[0], "tools": None, "messages": rows[0]["messages"] * 2}])
    assert json.loads(data["tools"][0])[0]["function"]["name"] == "clock" and data["tools"][1] is None
    read_demonstrations(data, "train_dataset")


def test_a_report_lists_every_dropped_row(tmp_path: Path) -> None:
    rows = [
        *clean_rows(5),
        {"question": "Is it | or \\?", "answer": ""},
        {"question": "A?", "answer": "so so so so so so"},
    ]
    for name in ("r.json", "r.md"):
        prepare_sft(rows, report=tmp_path / name)
    saved = json.loads((tmp_path / "r.json").read_text())
    assert saved["dropped"][0] == {
        **{"dataset": "dataset", "row": 5, "reason": "unreadable", "detail": "an empty answer"},
        "text": "Is it | or \\?",
    }
    assert saved["dropped"][1]["detail"] == "repetition 0.17" and saved["kept"] == 5 and saved["fingerprint"]
    page = (tmp_path / "r.md").read_text()
    assert "| dataset row 5 | an empty answer | Is it \\| or \\\\? |" in page
    with pytest.raises(UserError, match=r"report: .*r.txt is no .json or .md file"):
        prepare_sft(rows, report=tmp_path / "r.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_quality": 2}, "min_quality is 2; give a number from 0 to 1."),
        ({"duplicates": 0}, "duplicates is 0; give a similarity above 0"),
        ({"contamination": "rows"}, "contamination is 'rows'; give 'prompt' or 'row'."),
        ({"most": 3}, "most limits the rows of a category: name its column by balance."),
        ({"balance": "kind", "most": 3, "ratio": 2}, "most and ratio both limit"),
        ({"balance": "kind", "ratio": 0.5}, "ratio is 0.5; give a number from 1"),
        ({"balance": "kind", "most": 0}, "most is 0; give a number of rows from 1."),
        ({"balance": "kin"}, "balance: dataset has no column 'kin'; did you mean kind?"),
        ({"quality": "stars"}, "quality: dataset has no column 'stars'"),
        ({"report": "out.csv"}, "report: out.csv is no .json or .md file"),
        ({"eval_dataset": [{"title": "x"}]}, "eval_dataset has the columns title, which are no known layout"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    rows = [{"question": "Well?", "answer": "It was fine.", "kind": "a"}]
    with pytest.raises(UserError) as caught:
        prepare_sft(rows, **options)
    assert message in str(caught.value)


def test_plain_text_and_conversations_are_not_mixed() -> None:
    with pytest.raises(UserError, match="b has plain text and a has prompts with completions"):
        prepare_sft({"a": [{"question": "Well?", "answer": "Fine."}], "b": [{"text": "A film."}]})
