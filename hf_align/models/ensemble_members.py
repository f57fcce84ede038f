"""Members of an ensemble: loaded so that what they share is in memory once."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.models.heads import head_dtype
from hf_align.models.kinds import no_head
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel
from hf_align.models.reward_adapter import RewardAdapter, SharedRewardModel, shares_base
from hf_align.models.sources import adapter_config, is_ensemble, plain_folder

logger = logging.get_logger(__name__)

NOT_WEIGHTS = {"_name_or_path", "transformers_version", "pad_token_id", "dtype", "architectures", "problem_type"}
"""Entries of a config that say nothing about what a backbone computes."""


def load_members(
    sources: Sequence[Any],
    *,
    quantization: Quantization = None,
    dtype: str | torch.dtype = "auto",
    device_map: Any = None,
) -> list[Any]:
    """Load an ensemble's members, each onto the backbone of an earlier one if that is its own.

    Args:
        sources: Reward models, their folders or Hub ids, or other objects with a `score` like theirs. A reward model in
            memory becomes a member itself, or a new one on an earlier member's backbone; it isn't changed, but that
            backbone's PeftModel gets further adapters.
        quantization: As in `load_policy`, for folders.
        dtype: As in `load_policy`, for folders.
        device_map: As in `load_policy`, for folders.

    Raises:
        UserError: Something can't be loaded, or is no reward model.
    """
    members: list[Any] = []
    for number, source in enumerate(sources):
        if isinstance(source, str | os.PathLike):
            settings = {"quantization": quantization, "dtype": dtype, "device_map": device_map}
            members.append(_load(str(source), members, settings))
        elif isinstance(source, RewardModel):
            members.append(_shared(source, members) or source)
        elif callable(getattr(source, "score", None)) and hasattr(source, "tokenizer"):
            members.append(source)
        else:
            raise UserError(
                f"members[{number}] is a {type(source).__name__}; give reward models, their folders or their Hub ids."
            )
    return members


def _load(path: str, members: Sequence[Any], settings: dict[str, Any]) -> RewardModel:
    """A folder's reward model, on an earlier member's backbone if possible."""
    if is_ensemble(path):
        raise UserError(f"{path} is an ensemble itself; give its members, as in {path}/member-0.")
    if adapter_config(plain_folder(path)) is not None:
        for trunk in _trunks(members):
            if shares_base(trunk.model, path):
                source = RewardAdapter.of_folder(path)
                if member := _put_on(trunk, source, head_dtype(trunk.head)):
                    return member
    loaded = RewardModel.from_pretrained(path, **settings)
    if loaded.head_is_new:
        raise no_head(path)
    return _shared(loaded, members) or loaded


def _shared(reward: RewardModel, members: Sequence[Any]) -> RewardModel | None:
    """A reward model on an earlier member's backbone, or None if none is its own."""
    if any(reward is member for member in members):
        raise UserError("One reward model is in members twice; give each once, or weights.")
    if isinstance(reward, SharedRewardModel) and any(reward.model is member.model for member in _trunks(members)):
        return None  # it is there already
    for trunk in _trunks(members):
        if isinstance(trunk.model, PeftModel) and isinstance(reward.model, PeftModel):
            try:
                source = RewardAdapter.of_model(reward)
            except UserError:
                return None
            if member := _put_on(trunk, source, None):
                return member
        elif not isinstance(reward.model, PeftModel) and _same_backbone(trunk, reward):
            head, model = copy.deepcopy(reward.head), cast(PreTrainedModel, trunk.model)
            return SharedRewardModel(model, reward.tokenizer, head, reward.reward_config, reward.normalization)
    return None


def _trunks(members: Sequence[Any]) -> list[RewardModel]:
    """The members whose backbone others may sit on, each backbone once."""
    models: dict[int, RewardModel] = {}
    for member in members:
        if isinstance(member, RewardModel):
            models.setdefault(id(member.model), member)
    return list(models.values())


def _put_on(trunk: RewardModel, source: RewardAdapter, dtype: torch.dtype | None) -> RewardModel | None:
    """An adapter and its head as a reward model on a trunk's base; None if they don't fit there."""
    model = cast(PeftModel, trunk.model)
    name = f"member-{len(model.peft_config)}"
    if problem := source.put_on(model, name):
        logger.info(f"A member gets its own base, since it doesn't fit the one of an earlier member: {problem}.")
        return None
    head, settings = source.make_head(cast(torch.device, model.device), dtype), source.settings
    options: dict[str, Any] = {"adapter": name, "adapter_config": source.config}
    return SharedRewardModel(model, source.tokenizer, head, settings.config, settings.normalization, **options)


def _same_backbone(first: RewardModel, second: RewardModel) -> bool:
    """Whether two classifiers without adapters have the same config and, bit for bit, the same weights but the head."""
    if isinstance(first.model, PeftModel) or type(first.model).__name__ != type(second.model).__name__:
        return False
    configs = [{n: v for n, v in each.config.to_dict().items() if n not in NOT_WEIGHTS} for each in (first, second)]
    weights = [
        {n: t for n, t in each.model.state_dict().items() if not n.startswith("score.")} for each in (first, second)
    ]
    return (
        configs[0] == configs[1]
        and weights[0].keys() == weights[1].keys()
        and all(
            (t.device, t.dtype) == (weights[1][name].device, weights[1][name].dtype)
            and torch.equal(t, weights[1][name])
            for name, t in weights[0].items()
        )
    )
