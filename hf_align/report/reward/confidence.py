"""Whether a reward model knows where it errs: calibration, and an ensemble's uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hf_align.report.figures import Metrics, absent, decimal, low_end, percent, plain, share
from hf_align.report.reward.agreement import CHANCE
from hf_align.report.sections import Content, Grade, Table

NEAR_FLOOR = 0.02
"""Calibration error above that of pure chance that still counts as good."""
MEASURES = {
    "difference": "|difference of scores| alone",
    "entropy": "entropy of the preference",
    "std": "std over members",
    "variance_ratio": "variation ratio of members",
    "mc_dropout": "std over dropout passes",
}
"""Measures of a pair's uncertainty, in the order in which they are shown."""


def calibration(figures: Metrics, facts: Metrics) -> Content:
    """How far the probabilities that scores mean are from people's shares."""
    raw, fitted, temperature = figures["raw"], figures["fitted"], figures["temperature"]
    grade, means = _believed(raw, fitted, temperature)
    columns = [("as it is", raw)] + ([("after the temperature", fitted)] if fitted is not None else [])
    rows = [
        ["calibration error (ECE)", *(percent(table["ece"]) for _, table in columns)],
        [
            "  chance alone, and at most",
            *(f"{percent(t['ece_floor'], 2)}, {percent(t['ece_floor_high'], 2)}" for _, t in columns),
        ],
        ["Brier score", *(plain(table, "brier", 3) for _, table in columns)],
        ["  of people's own shares", *(decimal(table["brier_floor"], 3) for _, table in columns)],
        ["negative log-likelihood, nats", *(plain(table, "nll", 3) for _, table in columns)],
        ["  of people's own shares", *(decimal(table["nll_floor"], 3) for _, table in columns)],
    ]
    note = f"{figures['pairs']:,} pairs, each in both orders. P(a is better than b) = sigmoid(score of a - score of b)."
    if temperature is not None:
        limit = (
            " (at the limit of the fit: the scores order all of these pairs, or none)"
            if temperature["at_limit"]
            else ""
        )
        note += (
            f" Temperature {decimal(temperature['value'])}{limit}, judged on {temperature['judged_pairs']:,} pairs "
            "that it wasn't fitted on."
        )
    return Content(
        f"A probability read off its scores is wrong by {percent(raw['ece'])} on average, where chance alone gives "
        f"{percent(raw['ece_floor'], 2)}. {means}",
        grade,
        f"{percent(raw['ece'])} off, floor {percent(raw['ece_floor'], 2)}",
        [Table(("", *(name for name, _ in columns)), rows)],
        note,
    )


def _believed(raw: Metrics, fitted: Metrics | None, temperature: Metrics | None) -> tuple[Grade, str]:
    """Whether the probabilities can be believed: as they are, after the temperature, or not."""
    if _near_floor(raw):
        return "good", "Its probabilities can be believed as they are."
    if fitted is None or temperature is None:
        return "bad", "Its probabilities can't be believed."
    error = percent(fitted["ece"])
    if not _near_floor(fitted):
        return "bad", (
            f"Its probabilities can't be believed, nor after dividing its scores by a fitted temperature ({error})."
        )
    sure = "sure" if temperature["value"] > 1 else "unsure"
    return "fair", (
        f"It is too {sure} of itself: divide its scores by {decimal(temperature['value'])}, and they can be believed "
        f"({error})."
    )


def _near_floor(table: Metrics) -> bool:
    return bool(table["ece"] <= max(table["ece_floor_high"], table["ece_floor"] + NEAR_FLOOR))


def uncertainty(figures: Metrics, facts: Metrics) -> Content:
    """How well an ensemble's uncertainty tells errors from right pairs, beside what a single model knows."""
    measures = {measure["name"]: measure for measure in figures["measures"]}
    alone, entropy = measures["difference"], measures["entropy"]
    grade, said = _told_apart(measures)
    rows = [
        [
            label,
            plain(measures[name], "auroc"),
            "" if measures[name]["gain"] is None else plain(measures[name], "gain"),
            share(measures[name], "top_error"),
            share(measures[name], "rest_error"),
        ]
        for name, label in MEASURES.items()
        if name in measures
    ]
    alike = f"; {figures['equal_scores']:,} pairs with equal scores are left out" if figures["equal_scores"] else ""
    dropout = (
        f", and std of that of its score over {figures['passes']} passes with dropout" if figures["passes"] else ""
    )
    return Content(
        said,
        grade,
        f"AUROC {plain(entropy, 'auroc')}, difference alone {decimal(alone['auroc'])}",
        [Table(("uncertain by", "AUROC", "gain", "errors, unsure tenth", "errors, the rest"), rows)],
        f"{figures['errors']:,} errors in {figures['pairs']:,} decided pairs{alike}. {figures['members']} members. The "
        "uncertainty of a pair is that of the difference of its two scores, not of either: std over members of their "
        "difference, entropy of their mean probability that the first is better, share of members that aren't on the "
        f"majority's side{dropout}. AUROC: the chance that an error is less sure than a right pair; gain: what the "
        f"difference alone lacks. Intervals: 95%, bootstrap over {facts.get('unit', 'prompts')}.",
    )


def _told_apart(measures: Mapping[str, Metrics]) -> tuple[Grade, str]:
    """Whether errors are told from right pairs: better than by the difference alone, than by chance, or not."""
    alone, entropy = measures["difference"], measures["entropy"]
    if absent(entropy["auroc"]):
        return "", "It orders all of these pairs as people do, or none, so there is nothing to tell apart."
    grade: Grade = "fair"
    if low_end(entropy["auroc_interval"]) <= CHANCE:
        grade, means = "bad", "That is not clearly better than chance."
    elif low_end(entropy["gain_interval"]) > 0:
        grade, means = "good", "Several members see more than one."
    else:
        means = "That is not clearly better than the difference alone."
    best = max(measures.values(), key=lambda measure: -math.inf if absent(measure["auroc"]) else measure["auroc"])
    if best["name"] not in ("entropy", "difference"):
        means += f" The highest AUROC has the {MEASURES[best['name']]}: {decimal(best['auroc'])}."
    return grade, (
        f"Its uncertainty (entropy) tells errors from right pairs with an AUROC of {decimal(entropy['auroc'])}, "
        "the size of the difference alone, which a single model has too, with "
        f"{decimal(alone['auroc'])}; chance is 0.50. It errs in {percent(entropy['top_error'])} of the tenth of "
        f"pairs that it is least sure of, and in {percent(entropy['rest_error'])} of the rest. {means}"
    )
