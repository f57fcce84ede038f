"""A reference that follows the policy (`sync_ref_model`): its options, when it moves, and what is refused.

It moves when a step begins, after `ref_model_sync_steps` others. An evaluation or checkpoint between the two steps
still has the reference that the steps before were trained with, and a run resumed there moves it first of all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback

from hf_align.errors import UserError
from hf_align.fields import check_fields
from hf_align.files import MOVED_REFERENCE
from hf_align.models.moving_reference import MovingWeights
from hf_align.models.sources import adapter_config, plain_folder
from hf_align.trainers.config import AlignmentConfig


@dataclass
class ReferenceConfig(AlignmentConfig):
    """Options of trainers with a reference."""

    sync_ref_model: bool = field(
        default=False,
        metadata={
            "help": "Let the reference follow the policy: every ref_model_sync_steps steps its weights become "
            "ref_model_mixup_alpha x the policy's + (1 - ref_model_mixup_alpha) x its own (TR-DPO; Xu et al. 2024 for "
            "PPO). With LoRA it is a second adapter, whose parameters are averaged. KLs and log-ratios are then those "
            "to the current reference, which don't bound the KL from the start. False: it never changes."
        },
    )
    ref_model_mixup_alpha: float = field(
        default=0.6,
        metadata={
            "range": "(0, 1]",
            "help": "With sync_ref_model: the policy's share when the reference moves; 1 makes it the policy.",
        },
    )
    ref_model_sync_steps: int = field(
        default=512,
        metadata={
            "range": "[1, inf)",
            "help": "With sync_ref_model: optimizer steps from one move of the reference to the next. Where responses "
            "are sampled it must be a multiple of the steps per rollout, since it moves between rollouts.",
        },
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.sync_ref_model:
            for name in ("ref_model_mixup_alpha", "ref_model_sync_steps"):
                if (value := getattr(self, name)) != ReferenceConfig.__dataclass_fields__[name].default:
                    raise UserError(
                        f"{name} is {value} and sync_ref_model is off, so the reference never moves; set "
                        f"sync_ref_model=True, or leave {name} out."
                    )
        elif self.fsdp or self.deepspeed:
            refuse_shards()
        super().__post_init__()


class MoveReference(TrainerCallback):
    """Moves the reference when a step begins whose number is a multiple of `every`, except the first."""

    def __init__(self, weights: MovingWeights, *, alpha: float, every: int):
        self.weights, self.alpha, self.every = weights, alpha, every

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move it; all processes do the same, since they have the same weights."""
        if state.global_step and state.global_step % self.every == 0:
            self.weights.move(self.alpha)


def moves_reference(args: Any) -> bool:
    """Whether a trainer with this config has a reference that moves."""
    return isinstance(args, ReferenceConfig) and args.sync_ref_model


def moves_until(step: int, args: ReferenceConfig) -> int:
    """How often the reference has moved when this many steps are done: not yet for a step that is to come."""
    return max(0, step - 1) // args.ref_model_sync_steps


def check_moves(args: Any, model: Any, ref_model: Any, peft_config: Any, *, watched: bool) -> None:
    """Refuse what a moving reference can't be or give, before anything is loaded.

    Args:
        args: The trainer's config.
        model: As given to the trainer.
        ref_model: Likewise.
        peft_config: Likewise.
        watched: Whether a judge watches for over-optimisation along the KL from the start.

    Raises:
        UserError: `ref_model` is given and the policy trains an adapter, or a judge needs a start that isn't kept.
    """
    if not moves_reference(args):
        return
    has_adapter = isinstance(model, PeftModel) or peft_config is not None
    if (ref_model is not None or watched) and isinstance(model, str) and not has_adapter:
        has_adapter = adapter_config(plain_folder(model)) is not None
    if ref_model is not None and has_adapter:
        raise UserError(
            "ref_model is given, and sync_ref_model averages the reference with the policy, which trains an adapter: "
            "there the reference is a second adapter on the same base; leave ref_model out."
        )
    if watched and not has_adapter:
        raise UserError(
            "A judge watches for over-optimisation along the KL from the start, which isn't kept in full fine-tuning "
            "with sync_ref_model; leave one of them out, or train an adapter (peft_config)."
        )


def refuse_shards() -> None:
    """Refuse sharded weights, of which a process has only a part.

    Raises:
        UserError: Always.
    """
    raise UserError(
        "sync_ref_model averages whole weights: FSDP and DeepSpeed shard or convert them; use DDP, or switch it off."
    )


def check_moved_checkpoint(folder: Path, args: Any) -> None:
    """Refuse to resume with a moving reference from a checkpoint of a fixed one, and the other way round.

    Raises:
        UserError: They differ.
    """
    moves, moved = moves_reference(args), (folder / MOVED_REFERENCE).is_file()
    if moves and not moved:
        raise UserError(
            f"resume_from_checkpoint: {folder} has no {MOVED_REFERENCE}, so it was saved without sync_ref_model; "
            "resume with sync_ref_model=False, or start anew."
        )
    if moved and not moves:
        raise UserError(
            f"resume_from_checkpoint: {folder} has a reference that moved ({MOVED_REFERENCE}), and sync_ref_model is "
            "off; resume with the options that it was saved with."
        )
