"""The page, the tables and the sentences of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hf_align.algorithms import ALGORITHMS
from hf_align.evaluation.grid import read_results
from hf_align.evaluation.grid.traits import method_of
from hf_align.report.grid.picture import spread
from hf_align.report.grid.sentences import finding_sentences
from hf_align.report.grid.tables import comparison_table, seeds_of
from hf_align.report.grid.theory import THEORY
from tests.evaluation.grid.made_runs import CELLS, GRID, write_grid
from tests.report.page import Page

Summary = dict[str, Any]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out: Path = write_grid(tmp_path_factory.mktemp("grid"))
    return read_results(out, GRID, [*CELLS, *(("clean", "best-of-n", seed) for seed in (0, 1, 2))])


def test_the_page_loads_nothing_and_names_its_charts(results: Any) -> None:
    text = results.to_html()
    page = Page(text)
    assert page.tags.count("svg") == 3 + 4 + 2 and not page.unlabelled and not page.loads and "script" not in page.tags
    assert "the loss is NaN in step &lt;3&gt;" in text and "<3>" not in text
    # gain and whisker of an algorithm on the plane of KL and gain, and its name beside the dot
    assert 'class="whisker" d="M' in text and 'text-anchor="start">ppo</text>' in text


def test_what_wasnt_measured_is_called_that(results: Any) -> None:
    table = comparison_table(results.summary)
    assert table.columns[:2] == ["algorithm", "reward model"]
    dpo, ppo, best = table.rows
    assert dpo[1:5] == ["no", "yes", "no", "no"] and ppo[1:5] == ["yes", "yes", "yes", "yes"]
    assert dpo[7:9] == ["11.0 s", "1.00 GiB"] and ppo[7:9] == ["11.0 s (1.00 × DPO)", "1.00 GiB (1.00 × DPO)"]
    assert best[5] == "not measured" and best[9] == "not measured" and "2401.01879" in best[10]
    assert seeds_of(results.summary["datasets"][0]["algorithms"][2], "clean", results.summary) == "2 of 3"


def difference(a: str, b: str, mean: float, real: bool = True, enough: bool = True) -> Summary:
    figures = {"mean": mean, "interval": [mean - 0.1, mean + 0.1]}
    judged = {"enough": enough, "adjusted": 0.01 if real else 0.5 + mean, "real": real}
    return {"a": a, "b": b, "seeds": [0, 1], "difference": figures, "kl": None, **judged}


def test_sentences_name_the_better_one() -> None:
    pairs = [
        difference("a", "b", -0.3),
        difference("a", "c", 0.2),
        difference("b", "c", -0.05, real=False),
        difference("b", "d", 0.5, real=False, enough=False),
    ]
    dataset = {"name": "d", "algorithms": [{"label": x} for x in "abcd"], "differences": pairs, "frontier": None}
    assert finding_sentences({"datasets": [dataset], "flips": []}) == [
        "a is ahead of c (+0.200 [0.100, 0.300]).",
        "b is ahead of a (+0.300 [0.200, 0.400]).",
        "c and b (+0.050 [-0.050, 0.150]) are not told apart.",
        "b and d have fewer than two seeds in common, so nothing is said about another training.",
    ]


def test_many_open_pairs_are_counted_and_the_nearest_is_named() -> None:
    pairs = [difference("a", each, -0.1 * place, real=False) for place, each in enumerate("bcdef")]
    dataset = {"name": "d", "algorithms": [{"label": x} for x in "abcdefg"], "differences": pairs, "frontier": None}
    nearest = "f and a (+0.400 [0.300, 0.500], adjusted p 0.100)."
    summary = {"datasets": [dataset], "flips": []}
    assert finding_sentences(summary) == [f"of 5 pairs of algorithms none is told apart; nearest to it: {nearest}"]
    pairs.append(difference("a", "g", 0.2))
    assert finding_sentences(summary)[1] == f"5 other pairs are not told apart; nearest to it: {nearest}"


def test_names_of_near_points_are_spread_without_leaving_the_picture() -> None:
    assert spread([0.1, 0.5, 0.52, 0.99, 1.0], 0.1) == pytest.approx([0.1, 0.5, 0.6, 0.9, 1.0])
    assert spread([0.2, 0.4], 0.1) == [0.2, 0.4]


def test_sentences_about_best_of_n_and_flips(results: Any) -> None:
    text = "\n".join(finding_sentences(results.summary))
    beyond = (
        "clean: beyond best-of-n's range, which ends at 1.84 nats (gain minus best of 16 there): dpo at 4.0 nats (+0."
    )
    assert beyond in text and "clean: above best-of-n's curve: ppo at 0.5 nats (+0." in text
    assert "flipped against clean: flipped labels cost dpo 0." in text


def test_markdown_has_whole_tables_and_links(results: Any) -> None:
    lines = results.table().splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert "[arXiv:2305.18290](https://arxiv.org/abs/2305.18290)" in results.table() and len(tables) > 20
    assert "&lt;3>" in results.table()  # nothing in a reason becomes markup
    for place, line in enumerate(lines):
        if line.startswith("| ---"):
            below = lines[place + 1]
            assert lines[place - 1].count("|") == line.count("|") == below.count("|") - below.count("\\|")


def test_every_policy_that_we_train_has_a_line_of_theory() -> None:
    names = [name for name, each in ALGORITHMS.builtin.items() if each.trains == "policy"]
    methods = {method_of(name, {}) for name in names} | {"cdpo", "rloo", "grpo", "hybrid", "best-of-n"}
    assert methods <= set(THEORY) and all(each.source for each in THEORY.values())
