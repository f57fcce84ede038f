"""What an algorithm with its options is: which method, and which models and samples it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.evaluation.grid.runs import BEST_OF_N
from hf_align.losses import PREFERENCE_LOSSES

HYBRID = "hybrid"
NEEDS = ("reward_model", "reference", "online", "value")
"""Whether it needs a reward model or a judge, a reference, samples of its own policy, a value model."""


def method_of(algorithm: str, options: Mapping[str, Any]) -> str:
    """The method's name, by which theory is looked up.

    Args:
        algorithm: The registry's name, "hybrid" or "best-of-n".
        options: What it was trained with.

    Returns:
        "dpo", "cdpo", "rloo" and so on; the loss's name of another loss on pairs; otherwise the algorithm's.

    Example:
        >>> from hf_align.evaluation.grid.traits import method_of
        >>> method_of("dpo", {"label_smoothing": 0.1}), method_of("ppo", {"baseline": "group"}), method_of("sft", {})
        ('cdpo', 'rloo', 'sft')
    """
    if algorithm == "ppo":
        if options.get("baseline", "value") == "group":
            return "grpo" if options.get("group_scaling") else "rloo"
        return "reinforce" if options.get("baseline") == "none" else "ppo"
    if algorithm not in ("dpo", "ipo", "online-dpo"):
        return algorithm
    loss = options.get("loss_type") or ("ipo" if algorithm == "ipo" else "sigmoid")
    name = "+".join(loss) if isinstance(loss, list | tuple) else str(loss)
    if name == "sigmoid":
        name = "cdpo" if options.get("label_smoothing") else "dpo"
    return f"online-{name}" if algorithm == "online-dpo" else name


def needs_of(algorithm: str, options: Mapping[str, Any]) -> dict[str, bool | None]:
    """What it needs by `NEEDS`; None where nothing is known, as of an algorithm that isn't installed here."""
    if algorithm == BEST_OF_N:
        return {"reward_model": True, "reference": False, "online": False, "value": False}
    if algorithm == HYBRID:
        stages = [stage for stage in options.get("stages") or () if isinstance(stage, Mapping) and "algorithm" in stage]
        each = [needs_of(stage["algorithm"], {**options, **stage}) for stage in stages]
        return {name: any(needs[name] for needs in each) if each else None for name in NEEDS}
    try:
        known = ALGORITHMS[algorithm]
    except (KeyError, UserError):
        return dict.fromkeys(NEEDS)
    loss = options.get("loss_type")
    losses = loss if isinstance(loss, list | tuple) else [loss]
    free = all(
        isinstance(name, str) and name in PREFERENCE_LOSSES and PREFERENCE_LOSSES[name].reference_free
        for name in losses
    )
    return {
        "reward_model": bool({"reward", "label"} & set(known.needs)),
        "reference": "reference" in known.needs and not free,
        "online": known.rows == "prompts",
        "value": "value" in known.needs and options.get("baseline", "value") == "value",
    }
