"""Preferences in any layout give their better responses; what is in none is refused with what was seen."""

from __future__ import annotations

import pytest
from datasets import Dataset

from hf_align.data import SFTReport, prepare_sft
from hf_align.data.sft.recognition import recognise_demonstrations
from hf_align.data.sft.rows import standard_rows
from hf_align.errors import UserError


def test_transcripts_become_conversations_up_to_the_last_answer() -> None:
    start = "\n\nHuman: Is it on?\n\nAssistant: It is.\n\nHuman: Since when?\n\nAssistant:"
    rows = [{"chosen": f"{start} Since noon.", "rejected": f"{start} No."}]
    data = prepare_sft(rows)
    assert [message["content"] for message in data[0]["messages"]] == [
        "Is it on?",
        "It is.",
        "Since when?",
        "Since noon.",
    ]


def test_of_several_responses_the_preferred_one_is_taken() -> None:
    rows = [
        {"question": f"Is film {n} good?", "response_j": f"Film {n} is a joy.", "response_k": "No."} for n in range(3)
    ]
    rows.append({"question": "Is it?", "response_j": "", "response_k": "No."})
    report = SFTReport()
    data = prepare_sft(rows, report=report)
    assert data["completion"][:] == [f"Film {n} is a joy." for n in range(3)]
    assert [(each.place.row, each.reason) for each in report.dropped] == [(3, "unreadable")]
    assert report.rows == {"dataset": 4} and "as pairs, of which the better response" in report.layouts["dataset"]


def test_a_layout_that_is_none_is_refused_with_the_columns_and_the_nearest() -> None:
    with pytest.raises(UserError, match="films has the columns title, plot, which are no known layout") as caught:
        recognise_demonstrations(Dataset.from_list([{"title": "A", "plot": "B"}]), "films")
    assert "The nearest is" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "judged", "said"),
    [
        ("response", {"rating": 5}, "whatever their rating says"),
        ("completion", {"score": 0.5}, "whatever their score says"),
        (
            "response",
            dict.fromkeys(("helpfulness", "correctness", "coherence", "complexity", "verbosity"), 4),
            "whatever their helpfulness, correctness, coherence, complexity, verbosity says",
        ),
    ],
)
def test_several_rated_responses_to_a_prompt_are_warned_of_unless_quality_judges_them(
    answer: str, judged: dict[str, float], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"prompt": "Is the film good?", answer: f"Film {n} is a joy.", **judged} for n in range(3)]
    assert len(prepare_sft({"films": rows}, duplicates=None, report=SFTReport())) == 3
    assert caplog.text.count(said) == 1 and "films: several responses" in caplog.text and "quality=" in caplog.text
    caplog.clear()
    standard_rows(rows, "train_dataset")
    assert caplog.text.count(said) == 1
    caplog.clear()
    prepared = prepare_sft(rows, quality=lambda each: [1.0] * len(each), duplicates=None, report=SFTReport())
    standard_rows(prepared, "train_dataset")
    alone = [{**row, "prompt": f"Is film {n} good?"} for n, row in enumerate(rows)]
    prepare_sft(alone, duplicates=None, report=SFTReport())
    assert "whatever" not in caplog.text
