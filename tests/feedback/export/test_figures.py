"""Statistics of an export, against counts by hand."""

from __future__ import annotations

import pytest

from hf_align.feedback import PreferenceStore, Prompt, krippendorff_alpha
from hf_align.feedback.export import export_preferences
from tests.feedback.export.filled import Clock, add_task, filled


def test_counts_are_those_of_the_tasks_that_are_exported():
    figures = export_preferences(filled(6), method="majority", ties="keep").figures
    assert (figures["tasks"], figures["answers"], figures["annotators"], figures["people"]) == (6, 18, 3, 3)
    assert (figures["rows"], figures["prompts"], figures["splits"]) == (8, 6, {"train": 8})
    assert figures["ties"]["share"] == pytest.approx(1 / 3) and figures["tied_answers"]["count"] == 6
    assert figures["strength"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    pools = {part["pool"]: part for part in figures["by_pool"]}
    assert [pools["random"][name] for name in ("prompts", "tasks", "answers")] == [3, 3, 9]
    [plants] = figures["by_domain"]
    assert plants["domain"] == "plants" and plants["agreement"]["raw"] == pytest.approx((1 + 1 / 3 + 1) / 3)


def test_an_export_of_everything_has_the_figures_of_the_store_under_the_same_names():
    store = filled(6)
    add_task(store, Prompt("Gold?"), {"Anna Q": 1.0, "Cleo S": 0.0}, gold_best="good", domain="law")
    whole = store.statistics()
    everything = {"ties": "keep", "gold": True, "open_tasks": "keep", "names": True}
    exported = export_preferences(store, method="majority", **everything).figures
    for group in exported["by_group"]:
        del group["as_all"]
    for annotator in whole["by_annotator"]:
        del annotator["skips"], annotator["undos"]
    assert set(whole) - set(exported) == {"skips", "undos", "by_task"}
    shared = set(whole) & set(exported)
    assert {name: exported[name] for name in shared} == {name: whole[name] for name in shared}


def test_agreement_is_alpha_of_all_answers_and_within_groups():
    store = filled(6)
    figures = export_preferences(store, method="majority", ties="keep").figures
    first = [store.responses()[task.first_id].source == "strong" for task in store.tasks().values()]
    votes = [(1.0, 1.0, 1.0), (1.0, 1.0, 0.0), (0.5, 0.5, 0.5)] * 2
    table = [[v[who] if one else 1 - v[who] for v, one in zip(votes, first, strict=True)] for who in range(3)]
    assert figures["agreement"]["alpha"] == pytest.approx(krippendorff_alpha(table, "interval"))
    north, south = figures["by_group"]
    assert (north["group"], south["group"]) == ("north", "south")
    assert (north["annotators"], north["answers"], south["answers"]) == (2, 12, 6)
    assert north["agreement"]["alpha"] == 1.0 and south["agreement"]["alpha"] is None
    assert (north["as_all"]["count"], south["as_all"]["count"], south["as_all"]["of"]) == (6, 4, 6)


def test_win_rates_count_a_tie_as_half_a_win():
    rates = export_preferences(filled(6), method="majority", ties="keep").figures["win_rate"]
    assert rates["strong"]["share"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert rates["weak"]["share"] == pytest.approx(0.5 / 3) and rates["weak"]["comparisons"] == 6


def test_a_comparison_whose_commonest_vote_is_a_tie_is_half_a_win_whoever_got_the_other_votes():
    store = PreferenceStore("sqlite://")
    add_task(store, Prompt("Question?"), {"anna": 1.0, "ben": 0.5, "cleo": 0.5})
    figures = export_preferences(store, method="majority", ties="keep").figures
    assert figures["strength"] > 0 and figures["ties"]["count"] == 1
    assert [rate["share"] for rate in figures["win_rate"].values()] == [0.5, 0.5]


def test_the_left_share_and_times_are_those_of_answers_that_were_shown():
    clock = Clock()
    store = PreferenceStore("sqlite://", clock=clock)
    for number in range(4):
        add_task(store, Prompt(f"Question {number}?"), {}, wanted=1)
    sides = []
    for number in range(4):
        lease = store.lease("anna")
        assert lease is not None
        clock.now += 9
        chosen_left = number < 3
        store.answer(lease.id, float((lease.left == "first") == chosen_left), id=str(number))
        sides.append(chosen_left)
    export = export_preferences(store, method="majority")
    assert export.figures["left"] | {"low": 0, "high": 0} == {"count": 3, "of": 4, "share": 0.75, "low": 0, "high": 0}
    assert export.figures["seconds"] == {"median": 10.0, "mean": 10.0, "answers": 4}
    lefts = [row["answers"][0]["left"] for row in export.rows.to_list()]
    assert lefts == ["chosen" if side else "rejected" for side in sides]
    text = "\n".join(export.lines())
    assert "left side chosen in 0.750" in text and "median time of an answer 10 s" in text
