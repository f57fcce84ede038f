"""Choice of the module that computes as the reference policy."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn

from hf_align.errors import UserError
from hf_align.models.adapters import REFERENCE_ADAPTER, START_ADAPTER, active_adapter, add_frozen_copy
from hf_align.models.fingerprint import rewrites_base
from hf_align.models.kinds import check_is_policy
from hf_align.models.moving_reference import MovingWeights
from hf_align.models.policy import PolicyModel
from hf_align.models.quantized import keep_unpacked
from hf_align.models.randomness import disable_dropout
from hf_align.models.wrapper import BranchModel


def check_only_adapters_train(model: PeftModel) -> None:
    """Refuse trained weights outside adapters, which are part of the policy with any adapter or none.

    Raises:
        UserError: Names one, such as a bias (`LoraConfig(bias="all")`).
    """
    adapters = set(model.peft_config)
    outside = [
        name for name, weight in model.named_parameters() if weight.requires_grad and not adapters & {*name.split(".")}
    ]
    if outside:
        raise UserError(
            f"{outside[0]} is trained and belongs to no adapter that can be switched off: the reference, which is the "
            "policy under another adapter or none, would change with it; give ref_model, or train adapters alone "
            "(LoraConfig(bias='none'))."
        )


def _check_starts_as_base(config: Any, *, moves: bool) -> None:
    """Refuse a new adapter with which the policy isn't the base, if the base is to be its reference.

    Raises:
        UserError: The adapter's start changes the base, or is random where the reference is a copy of the adapter.
    """
    if rewrites_base(config):
        raise UserError(
            f"peft_config: init_lora_weights={config.init_lora_weights!r} changes the base's weights, so the policy "
            f"without its adapter is no reference; {'' if moves else 'give ref_model, or '}leave init_lora_weights out."
        )
    if moves and getattr(config, "init_lora_weights", True) is False:
        raise UserError(
            "peft_config: init_lora_weights=False starts the adapter at random, and with sync_ref_model the reference "
            "starts as a copy of it, so it wouldn't be the base; leave init_lora_weights out."
        )


@dataclass(frozen=True)
class UnderAdapter:
    """A reference that is the policy's own model under another adapter of it, or without any: takes no second model.

    Given as `ref_model` in place of a model, with a policy that has an adapter.

    Attributes:
        name: The adapter, frozen; None: the base.
    """

    name: str | None = None


class Reference:
    """The policy as given to the trainer, or an explicit model.

    Args:
        policy: The policy before training.
        model: An explicit reference, an `UnderAdapter`, or None.
        new_adapter: Whether the policy's adapter was made for this training, so that the reference is the base.
        snapshot: Whether to copy a fully trained policy's weights now; not needed if all log-probs are precomputed.
        place: Moves a frozen model to the training device and prepares it like the trained one.
        moves: Whether it is to follow the policy (`moving.move`). A new adapter then has a copy, too, which starts as
            the base, its B matrices being zero.

    Attributes:
        is_as_given: No explicit model: the reference computes what the policy does before training.
        module: The reference's separate model, or None if the policy's model computes as the reference.
        model: `module` as returned by `place`.
        adapter: The adapter with which the policy's model is the reference, or None.
        moving: Its weights that follow the policy's, or None.
        keeps_start: Whether `scored_as(start=True)` gives where a moving reference started; see `keep_start`.
    """

    keeps_start = False

    def __init__(
        self,
        policy: BranchModel,
        model: Any,
        *,
        new_adapter: bool,
        snapshot: bool,
        place: Callable[[PolicyModel], nn.Module],
        moves: bool = False,
    ):
        self.policy, self._place, self._new_adapter = policy, place, new_adapter
        self._start: str | None = None
        self.is_as_given = model is None
        self.module: PolicyModel | None = None
        self.model: nn.Module | None = None
        self.adapter: str | None = None
        self.moving: MovingWeights | None = None
        if isinstance(model, UnderAdapter):
            self._take_adapter(model.name)
        elif model is not None:
            check_is_policy(model, "ref_model")
            self._take(model)
        elif isinstance(policy.model, PeftModel):
            check_only_adapters_train(policy.model)
            if new_adapter:
                _check_starts_as_base(cast(Any, policy.model.peft_config["default"]), moves=moves)
            if moves or not new_adapter:
                twins = add_frozen_copy(policy.model, "default")
                self.adapter = REFERENCE_ADAPTER
                self.moving = MovingWeights(policy.model, policy.model, twins) if moves else None
        elif snapshot:
            self._take(copy.deepcopy(policy.model))
        if moves and self.module is not None:
            self.moving = MovingWeights.of_models(self.module.model, policy.model, is_copy=self.is_as_given)
        self.by_adapter = self.model is None and isinstance(policy.model, PeftModel)

    @property
    def is_kept(self) -> bool:
        """Whether it can still score after the policy has been trained."""
        return self.model is not None or self.by_adapter

    def _take(self, model: Any) -> None:
        if not isinstance(model, nn.Module):
            raise UserError(f"ref_model is a {type(model).__name__}; give a Hub id, a folder or a model.")
        keep_unpacked(model)
        disable_dropout(model)
        self.module = PolicyModel(model).requires_grad_(False)
        self.model = self._place(self.module)

    def keep_start(self) -> None:
        """Keep where a moving reference starts, if that is the base or takes only one more adapter; before training."""
        if self.moving is None or not self.by_adapter:
            return
        if not self._new_adapter:
            add_frozen_copy(cast(PeftModel, self.policy.model), "default", START_ADAPTER)
            self._start = START_ADAPTER
        self.keeps_start = True

    def _take_adapter(self, name: str | None) -> None:
        """Let the policy's model compute as the reference under this adapter."""
        model = self.policy.model
        if not isinstance(model, PeftModel) or (name is not None and name not in model.peft_config):
            raise UserError(f"ref_model is {UnderAdapter(name)}, and the policy has no such adapter; leave it out.")
        check_only_adapters_train(model)
        self.adapter = name

    @contextmanager
    def scored_as(self, policy: nn.Module, *, start: bool = False) -> Iterator[nn.Module]:
        """Yield the module that computes as the reference inside this context: its own, or the policy's.

        Args:
            policy: The policy as in the training step (possibly wrapped for DDP or FSDP).
            start: As the reference before it moved, if it `keeps_start`.
        """
        if self.model is not None:
            # The policy's mode: without dropout it only affects quantised kernels.
            self.model.train(policy.training)
            yield self.model
        else:
            adapter = self._start if start else self.adapter
            with active_adapter(policy, adapter) if self.by_adapter else nullcontext():
                yield policy

    def weights_key(self) -> str:
        """Hash of the reference's weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted((self.module or self.policy).state_dict().items()):
            parts = name.split(".")
            of_adapter = self.by_adapter and any(each in parts for each in cast(Any, self.policy.model).peft_config)
            if not of_adapter or self.adapter in parts:
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
