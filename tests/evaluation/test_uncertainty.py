"""Whether uncertainty finds errors: the rank statistic against scipy's, the bootstrap against rows drawn by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from hf_align import RewardEnsemble, RewardModel
from hf_align.data.comparison_rows import read_comparisons
from hf_align.errors import UserError
from hf_align.evaluation import reward_report
from hf_align.evaluation.uncertainty import detection, measure_uncertainty
from hf_align.statistics import Resampling, wilson_interval


def auroc(values: np.ndarray, wrong: np.ndarray) -> float:
    errors, right = values[wrong == 1], values[wrong == 0]
    return float(mannwhitneyu(errors, right).statistic) / (len(errors) * len(right))


def test_detection_is_the_mann_whitney_statistic_of_repeated_rows():
    draws = np.random.default_rng(0)
    values = np.round(draws.normal(size=(2, 40)), 1)  # with ties
    wrong = (draws.random(40) < 0.4).astype(float)
    weights = draws.integers(0, 4, size=(40, 5)).astype(float)
    expected = [
        [auroc(np.repeat(row, times), np.repeat(wrong, times)) for times in weights.T.astype(int)] for row in values
    ]
    np.testing.assert_allclose(detection(values, wrong, weights), expected, rtol=1e-12)
    assert np.isnan(detection(values, np.zeros(40), weights)).all()  # no errors


def rows(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"p{n // 2}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(count)]


def by_name(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {measure["name"]: measure for measure in figures["measures"]}


@pytest.mark.parametrize("across", [False, True])
def test_intervals_draw_prompts_or_texts_with_all_their_pairs(across: bool):
    if across:
        given = [{"prompt": f"p{n}", "response": f"r{n}", "rating": float(n)} for n in range(9)]
        data = read_comparisons(given, across_prompts=True)
    else:
        data = read_comparisons(rows(60))
    draws = np.random.default_rng(1)
    members = draws.normal(size=(3, len(data.text_of)))
    scores, resampling = members.mean(0), Resampling(data.units, resamples=60, seed=3)
    figures = measure_uncertainty(data, scores, members, [1.0] * 3, resampling)
    assert data.unit == ("texts" if across else "prompts")
    difference = scores[data.first] - scores[data.second]
    wrong, std = np.sign(difference) != data.better, (members[:, data.first] - members[:, data.second]).std(0)
    assert by_name(figures)["std"]["auroc"] == pytest.approx(auroc(std, wrong))
    values, tops = [], []
    units = data.unit_of
    for column in resampling.counts.T:
        copies = column[units[data.first]].astype(int) * (column[units[data.second]] if across else 1)
        drawn = np.repeat(np.arange(len(std)), copies)
        if 0 < wrong[drawn].sum() < len(drawn):
            values.append(auroc(std[drawn], wrong[drawn]) - auroc(-np.abs(difference)[drawn], wrong[drawn]))
        least_sure = np.argsort(-std)[: round(0.1 * len(std))]
        inside = np.isin(drawn, least_sure)
        if inside.any():
            tops.append(wrong[drawn][inside].mean())
    np.testing.assert_allclose(by_name(figures)["std"]["gain_interval"], np.percentile(values, [2.5, 97.5]), atol=1e-6)
    if not across:  # 6 pairs of 60; 3.6 of 36 take a part of one
        np.testing.assert_allclose(by_name(figures)["std"]["top_error_interval"], np.percentile(tops, [2.5, 97.5]))


def test_what_members_say_of_both_responses_alike_is_no_uncertainty_of_their_order():
    data = read_comparisons(rows(4))
    scores = np.array([1.0, 0.0, 2.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    level = np.tile(np.repeat([0.0, 50.0, 0.0, 50.0], 2), (2, 1)) * np.array([[-1.0], [1.0]])
    apart = np.array([[0.0] * 4 + [2.5, 0.0, 0.0, 0.0], [0.0] * 4 + [-2.5, 0.0, 0.0, 0.0]])
    figures = measure_uncertainty(
        data, scores, scores + level + apart, [1.0, 1.0], Resampling(data.units, resamples=20)
    )
    std = by_name(figures)["std"]
    assert (figures["pairs"], figures["errors"]) == (4, 1)
    assert std["auroc"] == 1.0  # the only pair on whose difference they disagree is the one that is wrong
    assert by_name(figures)["variance_ratio"]["auroc"] == 1.0
    assert by_name(figures)["difference"]["gain"] is None
    # One error in one pair is no share of 100% for sure.
    assert (std["top_error"], std["top_error_interval"]) == (1.0, list(wilson_interval(1.0, 1)))


def test_members_that_disagree_where_they_err_beat_the_difference_alone():
    draws = np.random.default_rng(0)
    data = read_comparisons([{"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(400)])
    hard = draws.random(400) < 0.2
    difference = np.where(hard, 0.0, 1.0) + draws.normal(size=(8, 400)) * np.where(hard, 2.0, 0.1)
    difference = difference / np.abs(difference.mean(0))  # the mean's size says nothing
    members = np.zeros((8, 800))
    members[:, ::2] = difference
    passes = np.zeros((4, 800))
    scores = members.mean(0) + 1e-6 * draws.normal(size=800)
    resampling = Resampling(data.units, resamples=200)
    figures = measure_uncertainty(data, scores, members, [1.0] * 8, resampling, passes=passes)
    measures = by_name(figures)
    assert list(measures) == ["difference", "std", "entropy", "variance_ratio", "mc_dropout"]
    for name in ("std", "entropy", "variance_ratio"):
        assert measures[name]["auroc"] > 0.85 and measures[name]["gain_interval"][0] > 0.1
        assert measures[name]["top_error"] > 2.5 * measures[name]["rest_error"]
        assert measures[name]["ratio"] == pytest.approx(measures[name]["top_error"] / measures[name]["rest_error"])
    assert measures["mc_dropout"]["auroc"] == 0.5  # all alike: a tenth of each pair belongs to the top
    assert measures["mc_dropout"]["top_error"] == pytest.approx(figures["error"])
    json.dumps(figures)


def test_a_report_on_an_ensemble_has_the_section_and_one_on_a_single_model_has_not(tiny_model_dir: str, tmp_path: Path):
    members = []
    for seed in range(2):
        torch.manual_seed(seed)
        members.append(RewardModel.from_backbone(tiny_model_dir))
    given = rows(12)
    ensemble = RewardEnsemble(members, "min")
    ensemble.normalize(given, "twelve pairs")
    options: dict[str, Any] = {"resamples": 20, "robustness_texts": 0}
    report = reward_report(ensemble, given, dropout_passes=2, **options)
    assert list(report.metrics)[-1] == "uncertainty"
    figures = report.metrics["uncertainty"]
    assert (figures["members"], figures["passes"]) == (2, 2)
    scores = torch.tensor([ensemble.score([r["prompt"]] * 2, [r["chosen"], r["rejected"]]) for r in given])
    assert figures["errors"] == int((scores[:, 0] < scores[:, 1]).sum())
    assert "Uncertainty (does it know where it errs?)" in str(report) and "normalized" in [
        r.kind for r in report.remarks
    ]
    assert 'id="uncertainty"' in report.to_html()
    json.dumps(report.to_json())

    ensemble.save_pretrained(tmp_path / "ensemble")
    named = reward_report(str(tmp_path / "ensemble"), given, dropout_passes=0, **options)
    assert named.facts["model"] == str(tmp_path / "ensemble") and named.metrics["uncertainty"]["passes"] == 0
    assert named.metrics["accuracy"] == report.metrics["accuracy"]
    with pytest.raises(UserError, match=r"is an ensemble, .*; leave output and"):
        reward_report(str(tmp_path / "ensemble"), given, output=1)
    with pytest.raises(UserError, match="at least 2"):
        reward_report(ensemble, given, dropout_passes=1)
    single = reward_report(ensemble.members[0], given, **options)
    assert "uncertainty" not in single.metrics and "Uncertainty" not in str(single)
