"""The reference policy: what it is, and which module computes as it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch
from peft import PeftModel
from torch import Tensor, nn

from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.models.adapters import REFERENCE_ADAPTER, active_adapter, add_frozen_copy, disable_dropout
from hf_align.models.kinds import check_is_policy
from hf_align.models.policy import PolicyModel
from hf_align.models.quantized import keep_unpacked
from hf_align.models.wrapper import BranchModel

if TYPE_CHECKING:
    pass


class ScoringTrainer(Protocol):
    """What a reference needs of its trainer."""

    model: Any
    args: Any
    accelerator: Any

    def response_logps(self, model: nn.Module, branches: Branches) -> Tensor:
        """Log-probs of the responses under `model`, as the trainer uses them: a sum each, or token by token."""
        ...


class Reference:
    """The policy as it was given to the trainer, or an explicit model.

    Args:
        trainer: Whose policy it is.
        model: An explicit reference, or None.
        new_adapter: The trainer made the policy's adapter, so the reference is the base: adapters off.
        snapshot: Copy a fully trained policy's weights now. Not needed where all log-probs are computed beforehand.
    """

    def __init__(self, trainer: ScoringTrainer, model: Any, *, new_adapter: bool, snapshot: bool):
        self.trainer = trainer
        self.model: nn.Module | None = None
        self.adapter: str | None = None
        policy: BranchModel = trainer.model
        if model is not None:
            check_is_policy(model, "ref_model")
            self.model = self._frozen(model)
        elif isinstance(policy.model, PeftModel):
            if not new_adapter:
                add_frozen_copy(policy.model, "default")
                self.adapter = REFERENCE_ADAPTER
        elif snapshot:
            self.model = self._frozen(copy.deepcopy(policy.model))
        self.by_adapter = self.model is None and isinstance(policy.model, PeftModel)

    @property
    def is_kept(self) -> bool:
        """Whether it can still be scored once the policy has been trained."""
        return self.model is not None or self.by_adapter

    def _frozen(self, model: Any) -> nn.Module:
        if not isinstance(model, nn.Module):
            raise UserError(f"ref_model is a {type(model).__name__}; give a Hub id, a folder or a model.")
        keep_unpacked(model)
        disable_dropout(model)
        frozen = PolicyModel(model).requires_grad_(False)
        if getattr(model, "quantization_method", None) is None:
            frozen = frozen.to(self.trainer.args.device)
        return self.trainer.accelerator.prepare_model(frozen, evaluation_mode=True)

    @torch.no_grad()
    def logps(self, policy: nn.Module, branches: Branches) -> Tensor:
        """What the trainer's `response_logps` gives for the reference.

        Args:
            policy: The policy as the training step holds it (wrapped for DDP or FSDP, or not).
            branches: The batch that the policy is scored on, too.
        """
        with self.scored_as(policy) as model:
            return self.trainer.response_logps(model, branches)

    @contextmanager
    def scored_as(self, policy: nn.Module) -> Iterator[nn.Module]:
        """The module that computes as the reference while this context lasts: its own, or the policy's."""
        if self.model is not None:
            # The same mode as the policy: without dropout it changes nothing but quantised kernels.
            self.model.train(policy.training)
            yield self.model
        else:
            with active_adapter(policy, self.adapter) if self.by_adapter else nullcontext():
                yield policy

    def weights_key(self) -> str:
        """A hash of the reference's weights and of how they compute."""
        trainer = self.trainer
        digest = hashlib.sha256(f"{trainer.args.bf16} {trainer.args.fp16}".encode())
        source = trainer.model if self.model is None else trainer.accelerator.unwrap_model(self.model)
        for name, tensor in sorted(source.state_dict().items()):
            parts = name.split(".")
            of_adapter = self.by_adapter and ("default" in parts or REFERENCE_ADAPTER in parts)
            if of_adapter and self.adapter not in parts:
                continue
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
