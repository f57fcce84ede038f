"""Ensembles as rewards: members that are adapters on the policy's base are put on it, without a second base."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from peft import PeftModel
from torch import nn

from hf_align.models.ensemble import RewardEnsemble
from hf_align.models.ensemble_files import EnsembleSettings, ensemble_folder
from hf_align.models.reward_adapter import RewardAdapter, shares_base
from hf_align.models.weight_average import average_adapters
from hf_align.models.wrapper import unwrapped
from hf_align.rewards.adapter import AdapterReward


def load_ensemble(path_or_hub_id: str | os.PathLike[str], policy: nn.Module | None) -> RewardEnsemble | AdapterReward:
    """Load an ensemble as a reward.

    Args:
        path_or_hub_id: Its folder or Hub id.
        policy: The policy. Members that are adapters on its base become adapters there; the others are loaded.

    Returns:
        The ensemble; of a weight average whose members all sit on the policy's base the one adapter that it is.
    """
    folder = ensemble_folder(path_or_hub_id)
    saved = EnsembleSettings.read(folder)
    fit = {name: policy is not None and shares_base(policy, folder / name) for name in saved.members}
    if policy is None or not any(fit.values()) or (saved.method == "weight_average" and not all(fit.values())):
        return RewardEnsemble.from_pretrained(folder)
    if saved.method == "weight_average":
        return average_on(policy, [folder / name for name in saved.members], saved.weights)
    return RewardEnsemble.from_pretrained(
        folder, place=lambda member: AdapterReward(policy, member) if fit[member.name] else member
    )


def average_on(policy: nn.Module, folders: list[Path], weights: list[float] | None) -> AdapterReward:
    """The weight average of reward adapters on a policy's base, as one adapter there.

    Args:
        policy: A PeftModel, or a wrapper around one, with their base.
        folders: The adapters.
        weights: One for each. Default: all alike.
    """
    members = [AdapterReward(policy, folder) for folder in folders]
    model, names = cast(PeftModel, unwrapped(policy, keep_peft=True)), [member.adapter for member in members]
    average = average_adapters(model, [RewardAdapter.of_folder(folder) for folder in folders], names, weights)
    for name in names:
        model.delete_adapter(name)
    return AdapterReward(policy, average, averages=len(folders))
