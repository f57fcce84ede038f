"""The report as an object: saved, shown in a terminal and in a notebook; what it says about its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_align import RewardModel
from hf_align.errors import UserError
from hf_align.evaluation import reward_report
from hf_align.model_cards import CardFacts, Evaluation, save_card
from hf_align.model_cards.files import add_evaluations
from hf_align.rewards.vader import vader_judge
from tests.models.layouts import LAYOUTS

PAIRS = [{"prompt": f"p{n % 4}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(8)]
SCORES = [[1.0, 0.0]] * 8


def test_a_report_is_saved_whole_as_a_page_or_as_figures(tmp_path: Path) -> None:
    report = reward_report(None, PAIRS, scores=SCORES, resamples=20)
    assert report.scores == SCORES and ", scores=" not in repr(report)
    report.save(tmp_path / "r.json")
    saved = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert list(saved) == ["facts", "remarks", "metrics"] and list(saved["metrics"]) == list(report.metrics)
    assert saved["remarks"][0] == {"kind": report.remarks[0].kind, "sentence": report.remarks[0].sentence}
    assert saved["facts"]["versions"]["torch"] == torch.__version__
    report.save(tmp_path / "new" / "r.html")
    page = (tmp_path / "new" / "r.html").read_text()
    assert page == report.to_html() and page.startswith("<!doctype html>")
    frame = report._repr_html_()
    assert frame.startswith('<iframe srcdoc="&lt;!doctype html&gt;') and frame.count("<") == 2, "all of it is escaped"
    with pytest.raises(UserError, match=r"r.pdf; a report is saved as .html or .json"):
        report.save(tmp_path / "r.pdf")


def test_a_terminal_s_width_counts_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    report = reward_report(None, PAIRS, scores=SCORES, resamples=20)
    for columns, least, most in (("40", 60, 80), ("300", 100, 120)):
        monkeypatch.setenv("COLUMNS", columns)
        assert least < max(map(len, str(report).splitlines())) <= most


def facts(model: Any, rows: Any = PAIRS, **settings: Any) -> tuple[dict[str, Any], list[str]]:
    report = reward_report(model, rows, resamples=10, robustness_texts=0, **settings)
    return report.facts, [remark.kind for remark in report.remarks]


def test_what_read_the_rows_is_said(tiny_model_dir: str, tmp_path: Path) -> None:
    RewardModel.from_backbone(tiny_model_dir).save_pretrained(tmp_path / "reward")
    name = str(tmp_path / "reward")
    given, remarks = facts(name, judge=vader_judge)
    assert given["model"] == name and given["judge"] == "VADER" and given["output"] is None
    assert given["template"].startswith("none: prompt and response are concatenated")
    assert "CPU cores" in given["processor"] and "template_unused" in remarks
    given, remarks = facts(name, chat_template="tokenizer")
    assert given["template"] == "the tokenizer's chat template" and "template_unused" not in remarks
    turns = [[{"role": "user", "content": row["prompt"]}] for row in PAIRS]
    messages = [{**row, "prompt": prompt} for row, prompt in zip(PAIRS, turns, strict=True)]
    assert facts(name, messages)[0]["template"] == "the tokenizer's chat template"
    bench = [{**row, "subset": "hep-go"} for row in PAIRS]
    given, remarks = facts(name, bench)
    assert given["template"] == "the tokenizer's chat template" and "as_conversations" in remarks
    given, remarks = facts(name, bench, chat_template="none")
    assert given["template"].startswith("none: ") and "as_conversations" not in remarks
    assert facts(lambda prompts, responses: [0.0] * len(responses))[0]["model"] == "<lambda>"


def test_outputs_padding_and_cut_rows_are_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    two = LAYOUTS["two classes"](tmp_path / "two")
    given, _ = facts(two, output="Better")
    assert given["output"] == "Better (output 1 in 0 to 1, log odds against the others)"
    assert given["template"].endswith("the pair of texts of its tokenizer")
    assert "padded_with_end" in facts(LAYOUTS["pad is EOS"](tmp_path / "padded"))[1]
    long = [{**row, "prompt": "a" * 600} for row in PAIRS]
    assert "cut" in facts(two, long, output="Better")[1]


def test_the_main_figures_of_a_report_are_on_the_card_of_the_model_that_it_measured(tmp_path: Path) -> None:
    scores = [[1.0, 0.0]] * 7 + [[0.0, 2.0]]
    rows = [{**row, "chosen": row["chosen"] + " indeed" * (n % 3)} for n, row in enumerate(PAIRS)]
    report = reward_report(None, rows, scores=scores, resamples=50)
    figures = {each.metric: each for each in report.evaluations()}
    assert list(figures) == ["accuracy", "ece", "ece_of_chance", "length_bias"], "pairs have no tau"
    accuracy = figures["accuracy"]
    assert accuracy.value == 7 / 8 and accuracy.interval == tuple(report.metrics["accuracy"]["accuracy_interval"])
    assert figures["ece"].value == report.metrics["calibration"]["raw"]["ece"] and figures["ece"].rows == 8
    folder = tmp_path / "model"
    save_card(folder, CardFacts(kind="reward", name="m", evaluation=[Evaluation("loss", 0.4)]))
    assert add_evaluations(folder, report.evaluations()) and add_evaluations(folder, report.evaluations())
    card = (folder / "README.md").read_text()
    assert card.count("| accuracy | 0.875 |") == 1 and "| loss | 0.4 |" in card
    low, high = (f"{end:.4g}" for end in report.metrics["accuracy"]["accuracy_interval"])
    assert f"| reward report on pairs | accuracy | 0.875 | {low} to {high} | 8 |" in card
    (folder / "README.md").write_text("mine")
    assert not add_evaluations(folder, report.evaluations()) and (folder / "README.md").read_text() == "mine"
