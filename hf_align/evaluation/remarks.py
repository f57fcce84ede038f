"""What a reader has to know before believing a figure of a reward report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.data.comparisons import Comparisons
from hf_align.report.remarks import FEW_UNITS, Remark, few_units

EQUAL_SHARE = 0.05
"""Share of decided pairs with equal scores that is worth a remark."""


def remarks_on(
    data: Comparisons, scores: NDArray[np.float64], metrics: dict[str, Any], facts: dict[str, Any]
) -> list[Remark]:
    """Remarks on the data and the model's scores, those that void most first."""
    accuracy = metrics["accuracy"]
    remarks = _on_scores(scores, accuracy)
    if data.better.any():
        remarks += _on_calibration(metrics["calibration"])
    else:
        remarks.append(Remark("all_undecided", "In no pair do people prefer one response, so there is no accuracy."))
    if data.across_prompts:
        remarks.append(
            Remark("across_prompts", "Pairs cross prompts; a reward model is trained to order responses to one prompt.")
        )
    if data.unit == "texts" and not data.across_prompts:
        remarks.append(
            Remark(
                "texts_drawn",
                f"{len(data.prompts)} prompts have {len(data.texts)} texts, so the bootstrap draws texts: intervals "
                "are those for these prompts.",
            )
        )
    if facts["units"] < FEW_UNITS:
        remarks.append(few_units(facts["units"], facts["unit"]))
    if data.candidates > len(data.first) + sum(data.skipped.values()):
        remarks.append(
            Remark(
                "sampled_pairs", f"{len(data.first)} of {data.candidates} pairs were drawn; raise max_pairs for more."
            )
        )
    for reason, count in data.skipped.items():
        remarks.append(Remark("skipped", f"Left out: {count} {reason}."))
    tau = metrics["tau"]
    if tau and tau["constant_scores"] and np.ptp(scores):
        rows = ", ".join(map(str, tau["constant_prompts"][:5]))
        remarks.append(
            Remark(
                "constant_rankings",
                f"{tau['constant_scores']} rankings have no tau: the model scores all their responses alike (from rows "
                f"{rows}).",
            )
        )
    return remarks


def _on_scores(scores: NDArray[np.float64], accuracy: dict[str, Any]) -> list[Remark]:
    pairs, equal = accuracy["pairs"], accuracy["equal_scores"]
    if np.ptp(scores) == 0:
        return [
            Remark(
                "constant_scores",
                f"The model gives every response the same score ({scores[0]:g}), so it orders nothing: an accuracy of "
                "one half says only that equal scores count half.",
            )
        ]
    remarks = []
    if equal > EQUAL_SHARE * pairs:
        remarks.append(
            Remark("equal_scores", f"{equal} of {pairs} pairs got equal scores and count half; is the model coarse?")
        )
    if accuracy["accuracy_interval"][1] < 0.5:
        remarks.append(
            Remark(
                "reversed", "The model orders most pairs against people; check the sign of its scores and the labels."
            )
        )
    return remarks


def _on_calibration(calibration: dict[str, Any]) -> list[Remark]:
    temperature = calibration["temperature"]
    if temperature and temperature["at_limit"]:
        return [
            Remark(
                "temperature_limit",
                "No temperature fits: the scores order all pairs, or none better than chance, so the fit ran into its "
                "limit.",
            )
        ]
    return []
