"""Hand-overs in words, for the record, the card, the report and dry runs."""

from __future__ import annotations

from typing import Any

from hf_align.trainers.hybrid.config import PREVIOUS, START
from hf_align.trainers.hybrid.plan import Planned

OPTIMIZER = "fresh, with its schedule"
"""Adam's moments are those of another loss, and of other parameters where there is a value head."""


def describe_hand_over(stage: Planned) -> dict[str, str]:
    """What a stage starts from: `policy`, `trains`, `reference`, `optimizer` and `seed`, in words."""
    hand_over, number = stage.hand_over, stage.number
    words = {"policy": "the start" if number == 1 else f"that of stage {number - 1}", "trains": _trained(stage)}
    if hand_over.reference is not None:
        moves = getattr(stage.args, "sync_ref_model", False)
        words["reference"] = _reference(stage) + (", following the policy (sync_ref_model)" if moves else "")
    return {**words, "optimizer": OPTIMIZER, "seed": str(stage.args.seed)}


def _trained(stage: Planned) -> str:
    hand_over, number = stage.hand_over, stage.number
    if stage.stage.adapter == "merge":
        return f"all weights, with the adapter of stage {number - 1} merged into them"
    if stage.stage.adapter == "new":
        return f"a new adapter on the weights of stage {number - 1}"
    if hand_over.form == "whole":
        return "all weights"
    return "an adapter" if number == 1 else f"the adapter of stage {number - 1}"


def _reference(stage: Planned) -> str:
    hand_over = stage.hand_over
    if hand_over.reference == PREVIOUS or (hand_over.reference == START and hand_over.start == "policy"):
        return "the start" if stage.number == 1 else "the policy as handed over"
    if hand_over.reference != START:
        return f"{hand_over.reference} (a second model)"
    how: dict[Any, str] = {
        "off": "without the adapter",
        "copy": "with a frozen copy of the start's adapter",
        "model": "as a second model",
    }
    return f"the start ({how[hand_over.start]})"
