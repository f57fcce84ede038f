"""Models of a run besides the trained one: its reference, reward models and judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_align.algorithms import Rows
from hf_align.feedback.judges.named import NamedJudge
from hf_align.models.ensemble_files import EnsembleSettings, ensemble_folder, member_sources
from hf_align.models.kinds import check_is_policy
from hf_align.models.reward_adapter import shares_base
from hf_align.models.sources import adapter_config, base_of, is_ensemble, plain_folder
from hf_align.planning.outline import Outline, loaded_bytes, outline
from hf_align.rewards.named import read_reward
from hf_align.rewards.sources import check_named_models, named_models
from hf_align.rewards.vader import VADER
from hf_align.trainers.dpo import check_reference
from hf_align.trainers.reward_setup import check_task_options, config_of

Source = Mapping[str, Any]
"""Checked values of a recipe's source keys: model, data, reward and so on."""
SCORING = ("reward", "judge", "eval_judge")
"""Keys of a recipe whose models score responses, or compare them."""
SCORING_NAMES = {"reward": "reward model", "judge": "judge", "eval_judge": "judge of evaluations"}


def check_models(kind: Rows, source: Source, args: Any) -> None:
    """Refuse models of kinds that the run's trainer refuses; of a config alone nothing is known.

    Args:
        kind: Kind of rows that the algorithm trains on.
        source: The recipe's models, its reward resolved.
        args: The trainer's config.

    Raises:
        UserError: A policy or its reference is a reward model, the loss has no reference, a reward model is none, or
            its tasks aren't those of the options.
    """
    model = source["model"]
    is_named = isinstance(model, str) and not model.endswith(".json")
    if args.checkpoint_kind != "reward":
        check_is_policy(model if is_named else None, "model", ask_hub=True)
        check_is_policy(source.get("ref_model"), "ref_model", ask_hub=True)
    if not getattr(args, "needs_reference", True) and source.get("ref_model") is not None:
        check_reference(args, "ref_model")
    if kind == "comparisons" and is_named:
        check_task_options(args, config_of(model, args).tasks)
    for key in SCORING:
        check_named_models(reward_of(source.get(key)))


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
