"""The first choice as a run: planned with its options as a whole, and changed where that doesn't fit."""

from __future__ import annotations

from typing import Any

from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.planning.planner import Plan, plan_settings
from hf_align.planning.selection.candidates import candidates
from hf_align.planning.selection.estimates import longest_row
from hf_align.planning.selection.resources import Resources
from hf_align.planning.selection.select import Recommendation
from hf_align.planning.settings import Settings


def plan_choice(
    choice: Recommendation,
    model: str,
    resources: Resources | None = None,
    *,
    train_dataset: str | None = None,
    reward: str | None = None,
) -> Plan:
    """Plan a recommended algorithm with the options to begin with, for the longest row that was inspected.

    `choice` compares algorithms by the smallest micro-batch; its options may take more. `Plan.recipe()` has them with
    the cheapest changes that fit.

    Args:
        choice: From `select_algorithm`.
        model: The policy, as given there.
        resources: As given there.
        train_dataset: Name of the data, for the recipe.
        reward: Name of the reward, for the recipe of an algorithm that needs one.

    Raises:
        UserError: The first choice trains nothing.

    Example:
        >>> from hf_align.planning import Resources, plan_choice, select_algorithm
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}] * 20
        >>> model, gpu = "HuggingFaceTB/SmolLM2-135M-Instruct", Resources("24GB")
        >>> choice = select_algorithm(rows, model, gpu, ["simple"])
        >>> "model: HuggingFaceTB" in plan_choice(choice, model, gpu, train_dataset="pairs.jsonl").recipe()
        True
    """
    candidate = next(each for each in candidates() if each.name == choice.algorithm)
    if candidate.algorithm is None:
        raise UserError(f"recipe: {candidate.name} trains nothing, so there is no recipe; it is {choice.command}")
    algorithm = ALGORITHMS[candidate.algorithm]
    named: dict[str, Any] = {"train_dataset": train_dataset}
    if candidate.needs_reward:
        named["reward"] = reward
    values = {**{key: value for key, value in named.items() if value is not None}, **choice.hyperparameters}
    rows = [longest_row(candidate.work, choice.features)]
    return plan_settings(Settings(model, algorithm, values, (resources or Resources()).device, rows))
