"""Models of a run besides the trained one: its reference, reward models and judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_align.feedback.judges.named import NamedJudge
from hf_align.models.ensemble_files import EnsembleSettings, ensemble_folder, member_sources
from hf_align.models.reward_adapter import shares_base
from hf_align.models.sources import adapter_config, base_of, is_ensemble, plain_folder
from hf_align.planning.outline import Outline, loaded_bytes, outline
from hf_align.rewards.named import read_reward
from hf_align.rewards.sources import named_models
from hf_align.rewards.vader import VADER

Source = Mapping[str, Any]
"""Checked values of a recipe's source keys: model, data, reward and so on."""
SCORING = ("reward", "judge", "eval_judge")
"""Keys of a recipe whose models score responses, or compare them."""
SCORING_NAMES = {"reward": "reward model", "judge": "judge", "eval_judge": "judge of evaluations"}


def has_reference(source: Source, args: Any) -> bool:
    """Whether a run compares its policy with a reference."""
    return "ref_model" in source and bool(getattr(args, "needs_reference", True))


def reference_bytes(source: Source, args: Any, model: Outline) -> dict[str, float]:
    """Bytes of a reference that isn't the policy under another adapter or none."""
    if not has_reference(source, args):
        return {}
    if (name := source["ref_model"]) is not None:
        given = outline(name, quantization=source.get("quantization"), dtype=model.dtype)
        moves = getattr(args, "sync_ref_model", False)  # in float32, to follow by small steps
        return {"reference": 4.0 * given.total if moves else loaded_bytes(given.model)}
    if getattr(args, "precompute_ref_log_probs", False):
        return {}
    if not model.is_adapter:
        return {"reference, a copy": 4.0 * model.total}
    copied = model.adapter_is_given or getattr(args, "sync_ref_model", False)
    return {"reference, a copy of the adapter": 4.0 * model.trained} if copied else {}


def scoring_bytes(reward: Any, policy: Outline) -> float:
    """Bytes of reward models; functions take none, and an adapter on the policy's base needs no second base.

    Members of an ensemble that are adapters on one base, or heads on one, have it once.
    """
    total = 0.0
    if isinstance(reward, NamedJudge) and reward.kind == "model":
        quantization = reward.values.get("quantization")
        total += outline(reward.values["model"], quantization=quantization, dtype=policy.dtype).base_bytes
    for source in named_models(reward_of(reward)):
        bases: set[str] = set()
        heads = is_ensemble(source) and EnsembleSettings.read(ensemble_folder(source, weights=False)).kind == "heads"
        for name in member_sources(source):
            model = outline(name, reward=True, dtype=policy.dtype)
            total += 4.0 * model.trained if model.is_adapter else 0.0
            adapter = adapter_config(plain_folder(name))
            base = source if heads else name if adapter is None else plain_folder(base_of(adapter, name))
            if base not in bases and not shares_base(policy.model, name):
                bases.add(base)
                total += model.base_bytes
    return total


def reward_of(scoring: Any) -> Any:
    """A reward itself, or the one that a judge of pairs goes by; None of other judges."""
    if not isinstance(scoring, NamedJudge):
        return scoring
    reward = scoring.values.get("reward")
    return None if reward in (None, VADER) else read_reward(reward)
