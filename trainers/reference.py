"""Trainers with a reference: it is made, accelerated as the policy is, and, where it moves, saved in checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from peft import PeftConfig
from torch import nn
from transformers import Trainer

from hf_align.files import MOVED_REFERENCE
from hf_align.models.loading import load_policy
from hf_align.models.moving_reference import MovingWeights
from hf_align.models.policy import PolicyModel
from hf_align.models.quantized import Quantization
from hf_align.models.reference import Reference
from hf_align.models.wrapper import BranchModel
from hf_align.trainers.moving_reference import (
    MoveReference,
    ReferenceConfig,
    moves_reference,
    moves_until,
    refuse_shards,
)


class ReferenceTrainer(Trainer):
    """A Trainer that may have a reference.

    Attributes:
        reference: Only where there is one.
    """

    reference: Reference
    _unfinished: Path | None  # of `WholeCheckpoints`: the checkpoint that is being written

    def branch_models(self) -> list[BranchModel]:
        """Models that compute the same batches and must attend alike; the trained one first."""
        reference: Reference | None = getattr(self, "reference", None)
        module = None if reference is None else reference.module
        return [self.accelerator.unwrap_model(self.model), *([] if module is None else [module])]

    def accelerated_models(self) -> list[nn.Module]:
        """The same models: a reference computes as its policy does."""
        return [*self.branch_models()]

    def make_reference(
        self, model: Any, peft_config: PeftConfig | None, quantization: Quantization, *, snapshot: bool = True
    ) -> Reference:
        """The reference of this trainer's policy, loaded if given by name; see `Reference`.

        With `sync_ref_model` it follows the policy from then on.
        """
        moves = moves_reference(self.args)
        if moves and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            refuse_shards()
        if isinstance(model, str):
            model = load_policy(model, quantization=quantization)

        def place(frozen: PolicyModel) -> nn.Module:
            if getattr(frozen.model, "quantization_method", None) is None:
                frozen = frozen.to(self.args.device)
            return self.accelerator.prepare_model(frozen, evaluation_mode=True)

        reference = Reference(
            cast(BranchModel, self.model),
            model,
            new_adapter=bool(peft_config),
            snapshot=snapshot,
            place=place,
            moves=moves,
        )
        if reference.moving is not None:
            args = cast(ReferenceConfig, self.args)
            self.remove_callback(MoveReference)  # of a trial before
            alpha, every = args.ref_model_mixup_alpha, args.ref_model_sync_steps
            self.add_callback(MoveReference(reference.moving, alpha=alpha, every=every))
        return reference

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add how often a reference that moves has moved."""
        if "loss" in logs and moves_reference(self.args):
            logs["reference/moves"] = moves_until(self.state.global_step, cast(ReferenceConfig, self.args))
        super().log(logs, start_time)

    # ---- checkpoints ----

    @property
    def _moving(self) -> MovingWeights | None:
        """The weights of a reference that moves, which checkpoints hold."""
        reference: Reference | None = getattr(self, "reference", None)
        return None if reference is None else reference.moving

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self._unfinished is not None and self._moving is not None:  # in a checkpoint, not beside a saved model
            self._moving.save(Path(cast(str, output_dir)) / MOVED_REFERENCE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._moving is not None:
            self._moving.load(Path(resume_from_checkpoint) / MOVED_REFERENCE)
